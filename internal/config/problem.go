package config

import (
	"fmt"
	"strings"
)

// Problem is one thing wrong with a configuration, in one line.
type Problem struct {
	Where string // file:line:column, the environment variable, or the flag; may be empty
	Path  string // the key, such as producer.batch_delay; may be empty
	What  string // what is wrong and what to write instead
}

func (p Problem) String() string {
	var b strings.Builder
	for _, s := range []string{p.Where, p.Path} {
		if s != "" {
			b.WriteString(s)
			b.WriteString(": ")
		}
	}
	b.WriteString(p.What)
	return b.String()
}

// Invalid is returned for a configuration that can't be used. It has at least
// one problem.
type Invalid struct{ Problems []Problem }

func (e *Invalid) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].String()
	}
	return fmt.Sprintf("%s (and %d more)", e.Problems[0], len(e.Problems)-1)
}

// nearest is the candidate that s is most probably a misspelling of, or "".
func nearest(s string, candidates []string) string {
	best, bestDistance := "", min(3, max(1, len(s)/3))
	for _, c := range candidates {
		if strings.EqualFold(strings.ReplaceAll(s, "-", "_"), c) {
			return c
		}
		if d := distance(s, c, bestDistance+1); d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of single letters to insert, remove, replace or swap
// with their neighbour, at most limit.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= limit {
		return limit
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit)
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
