package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written with its unit, such as 2ms, 30s,
// 1h30m or 7d.
type Duration time.Duration

// UnmarshalText accepts what time.ParseDuration does, not negative, and whole
// days as 7d.
func (d *Duration) UnmarshalText(b []byte) error {
	s := string(b)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err == nil && n >= 0 && n <= 36500 {
			*d = Duration(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return fmt.Errorf("%q has no unit: write it like 2ms, 30s or 7d", s)
		}
		return fmt.Errorf("%q is not a duration: write it like 2ms, 30s or 7d", s)
	}
	if v < 0 {
		return fmt.Errorf("%q is negative", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the shortest form that reads back the same.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	v := time.Duration(d)
	if v >= 24*time.Hour && v%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(v/(24*time.Hour)), 10) + "d"
	}
	s := v.String()
	// time.Duration writes 1h30m0s; the zero tail says nothing.
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Std is the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Bytes is a size that is written with its unit: 512B, 64KiB, 1MiB, 10GiB, or
// the decimal kB, MB, GB.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// UnmarshalText accepts a non-negative whole number and a unit; 0 needs none.
func (v *Bytes) UnmarshalText(b []byte) error {
	s := string(b)
	if s == "0" {
		*v = 0
		return nil
	}
	for _, u := range byteUnits {
		num, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimRight(num, " "), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not a size: write a whole number and a unit, like 64MiB", s)
		}
		if n > (1<<62)/u.size {
			return fmt.Errorf("%q is too large", s)
		}
		*v = Bytes(n * u.size)
		return nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return fmt.Errorf("%q has no unit: write it like 512B, 256KiB or 64MiB", s)
	}
	return fmt.Errorf("%q is not a size: write it like 512B, 256KiB or 64MiB", s)
}

// MarshalText is the largest binary unit that reads back the same.
func (v Bytes) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

func (v Bytes) String() string {
	if v == 0 {
		return "0"
	}
	for _, u := range byteUnits[:4] {
		if int64(v)%u.size == 0 {
			return strconv.FormatInt(int64(v)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(v), 10) + "B"
}

// ServerID is a replication server id; 0 is written auto.
type ServerID uint32

// UnmarshalText accepts auto or 1 to 4294967295.
func (v *ServerID) UnmarshalText(b []byte) error {
	if string(b) == "auto" {
		*v = 0
		return nil
	}
	n, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a server id: write auto, or a number from 1 to 4294967295", b)
	}
	*v = ServerID(n)
	return nil
}

// MarshalText is auto or the number.
func (v ServerID) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

func (v ServerID) String() string {
	if v == 0 {
		return "auto"
	}
	return strconv.FormatUint(uint64(v), 10)
}

// ClusterNode is one line of node.cluster. As text, in a variable or a flag, it is
// name@city=host:port, with +witness behind it for one that stores no entries.
type ClusterNode struct {
	Name    string `yaml:"name" json:"name"`
	City    string `yaml:"city" json:"city"`
	Address string `yaml:"address" json:"address"`
	Witness bool   `yaml:"witness" json:"witness,omitempty"`
}

// UnmarshalText accepts the text form.
func (n *ClusterNode) UnmarshalText(b []byte) error {
	text, witness := strings.CutSuffix(string(b), "+witness")
	place, address, ok := strings.Cut(text, "=")
	name, city, okCity := strings.Cut(place, "@")
	if !ok || !okCity {
		return fmt.Errorf("%q is not a node: write it as name@city=host:port, with +witness behind it for a witness", b)
	}
	*n = ClusterNode{Name: name, City: city, Address: address, Witness: witness}
	return nil
}

func (n ClusterNode) String() string {
	s := n.Name + "@" + n.City + "=" + n.Address
	if n.Witness {
		s += "+witness"
	}
	return s
}

// Shares is a number of nodes for each city. As text it is a=1,b=2.
type Shares map[string]int

// UnmarshalText accepts the text form; empty: none.
func (s *Shares) UnmarshalText(b []byte) error {
	out := Shares{}
	for w := range strings.SplitSeq(string(b), ",") {
		if w = strings.TrimSpace(w); w == "" {
			continue
		}
		city, number, ok := strings.Cut(w, "=")
		n, err := strconv.ParseInt(number, 10, 16)
		if !ok || err != nil {
			return fmt.Errorf("%q is not a city's share: write it as city=number, such as a=1", w)
		}
		if _, twice := out[city]; twice {
			return fmt.Errorf("city %q stands here twice", city)
		}
		out[city] = int(n)
	}
	if len(out) == 0 {
		out = nil
	}
	*s = out
	return nil
}
