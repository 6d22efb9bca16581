package client

// TallyAlways makes a single writer of c use tallies as well. It comes before the
// first writer.
func TallyAlways(c *Client) { c.tallyFrom = 1 }

// Tallied is how many connections have their acknowledgements on a tally now.
func Tallied(c *Client) int {
	c.tallies.mu.Lock()
	defer c.tallies.mu.Unlock()
	n := 0
	for _, t := range c.tallies.by {
		n += len(t.seats)
	}
	return n
}

// CutTallies breaks the tallies that are there.
func CutTallies(c *Client) {
	c.tallies.mu.Lock()
	defer c.tallies.mu.Unlock()
	for _, t := range c.tallies.by {
		select {
		case <-t.ready:
			if t.session != nil {
				t.session.cut()
			}
		default:
		}
	}
}
