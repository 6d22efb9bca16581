package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"
)

// Halt is why a role stopped by itself, in its own words.
type Halt struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy"`
	GTID   string `json:"gtid"`
}

func (h Halt) String() string {
	return fmt.Sprintf("HALT %s: %s (remedy: %s; %s)", h.Code, h.Detail, h.Remedy, h.GTID)
}

// Halted is the halt that the role's process reports on /status; nil when there
// is none, or no process.
func (p *Pipeline) Halted(r Role) (*Halt, error) {
	if pid, _ := p.Process(r); pid == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.AdminURL(r)+"/status", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		if pid, _ := p.Process(r); pid == 0 || os.IsTimeout(err) {
			return nil, nil // killed meanwhile, or busy
		}
		return nil, fmt.Errorf("status of %s: %w", r, err)
	}
	var doc struct {
		Roles []struct {
			Role  string `json:"role"`
			Halts []Halt `json:"halts"`
		} `json:"roles"`
	}
	err = errors.Join(json.NewDecoder(res.Body).Decode(&doc), res.Body.Close())
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", r, err)
	}
	role := r
	if slices.Contains(p.Nodes(), r) {
		role = Node // whatever its name
	}
	for _, s := range doc.Roles {
		if s.Role == string(role) && len(s.Halts) > 0 {
			return &s.Halts[0], nil
		}
	}
	return nil, nil
}
