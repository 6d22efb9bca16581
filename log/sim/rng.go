package sim

// rng is splitmix64: small, fast, and the same on every platform.
type rng struct{ s uint64 }

func (r *rng) next() uint64 {
	r.s += 0x9e3779b97f4a7c15
	z := r.s
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// n is uniform in [0, n).
func (r *rng) n(n int) int { return int((r.next() >> 32) * uint64(n) >> 32) }

// between is uniform in [a, b].
func (r *rng) between(a, b int64) int64 { return a + int64(r.n(int(b-a+1))) }

// oneIn is true once in n times.
func (r *rng) oneIn(n int) bool { return r.n(n) == 0 }
