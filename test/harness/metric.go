package harness

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metric is the sum of a role's samples of a metric whose labels hold the text,
// such as city="other"; an empty text: of all of them.
func (p *Pipeline) Metric(ctx context.Context, r Role, name, labels string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.AdminURL(r)+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	sum, found := 0.0, false
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' || !strings.Contains(rest, labels) {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%s of %s: %w", name, r, err)
		}
		sum, found = sum+v, true
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("%s serves no %s with %s", r, name, labels)
	}
	return sum, nil
}

// Counter adds up a counter over the lives of a process: it begins again at 0 with
// each of them. What is counted after the last look at a process that is then
// killed is missed.
type Counter struct {
	Total float64
	last  float64
}

// See takes in the counter's present value.
func (c *Counter) See(v float64) {
	if v < c.last {
		c.last = 0
	}
	c.Total += v - c.last
	c.last = v
}
