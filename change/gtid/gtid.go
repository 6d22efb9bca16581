// Package gtid knows the transaction identities of MySQL and MariaDB and the
// sets they make.
//
// A MySQL GTID is "uuid:n" or, tagged, "uuid:tag:n", and a set is any set of
// them, written as intervals. A MariaDB GTID is "domain-server-n", and a set is
// a position: one GTID for each domain, which stands for everything up to it.
package gtid

import (
	"errors"
	"fmt"
)

// The flavours, spelled as server.Flavor spells them.
const (
	MySQL   = "mysql"
	MariaDB = "mariadb"
)

// ErrInvalid is wrapped by every error about text that is not a GTID or set.
var ErrInvalid = errors.New("invalid GTID")

// ErrFlavor: the operands, or the set and the GTID, are of different kinds of server.
var ErrFlavor = errors.New("GTIDs of different flavours")

// Set is a set of GTIDs of one flavour. The zero Set is empty and has no flavour:
// it can be compared and read, and Union gives it one. Copies share memory, so
// change only a set of your own: see Clone. A Set that is being changed needs a
// lock of its owner's; readers alone need none.
type Set struct {
	flavor  string
	sources []source   // MySQL, by uuid then tag; none without intervals
	last    int        // the source that Add touched last: most often the next one
	domains []position // MariaDB, by domain
}

// New makes an empty set. It panics on a flavour that is neither MySQL nor
// MariaDB; Parse tells instead.
func New(flavor string) Set {
	if flavor != MySQL && flavor != MariaDB {
		panic(fmt.Sprintf("gtid: flavour %q", flavor))
	}
	return Set{flavor: flavor}
}

// Parse reads a set as servers write it: white space around parts, new lines
// after commas, and the empty string are fine. Errors wrap ErrInvalid and name
// the part that is wrong.
func Parse(flavor, text string) (Set, error) {
	switch flavor {
	case MySQL:
		return parseMySQL(text)
	case MariaDB:
		return parseMariaDB(text)
	}
	return Set{}, fmt.Errorf("%w: flavour %q: use %s or %s", ErrInvalid, flavor, MySQL, MariaDB)
}

// Flavor is "mysql", "mariadb", or empty for the zero Set.
func (s Set) Flavor() string { return s.flavor }

// IsEmpty tells whether the set has no GTID.
func (s Set) IsEmpty() bool { return len(s.sources) == 0 && len(s.domains) == 0 }

// Clone copies the set: the copy shares nothing with s.
func (s Set) Clone() Set {
	c := Set{flavor: s.flavor, last: s.last}
	if s.sources != nil {
		c.sources = make([]source, len(s.sources))
		for i, src := range s.sources {
			src.intervals = append([]interval(nil), src.intervals...)
			c.sources[i] = src
		}
	}
	c.domains = append([]position(nil), s.domains...)
	return c
}

// String is the server's own spelling and order, in one line: MySQL's without the
// new lines it puts after commas. Equal sets have equal strings.
func (s Set) String() string { return string(s.Append(nil)) }

// Append appends String to dst.
func (s Set) Append(dst []byte) []byte {
	if s.flavor == MariaDB {
		return s.appendMariaDB(dst)
	}
	return s.appendMySQL(dst)
}

// Add puts one GTID into the set. One that is in it already changes nothing: for
// MariaDB that is any sequence number up to the domain's position. It takes
// O(log n) and does not allocate while a source's numbers ascend.
func (s *Set) Add(gtid string) error {
	switch s.flavor {
	case MySQL:
		return s.addMySQL(gtid)
	case MariaDB:
		return s.addMariaDB(gtid)
	}
	return fmt.Errorf("add %s: %w: the set has no flavour", gtid, ErrFlavor)
}

// ContainsGTID tells whether one GTID is in the set.
func (s Set) ContainsGTID(gtid string) (bool, error) {
	switch s.flavor {
	case MySQL:
		return s.containsMySQL(gtid)
	case MariaDB:
		return s.containsMariaDB(gtid)
	}
	return false, fmt.Errorf("look for %s: %w: the set has no flavour", gtid, ErrFlavor)
}

// Follows tells whether the GTID is new to the set and leaves no hole below it:
// its predecessor is in the set, or it is the first of its source (of its domain,
// for MariaDB). False is worth a look and no proof of loss: standbys that commit
// out of order, filters, and operators make holes too.
func (s Set) Follows(gtid string) (bool, error) {
	switch s.flavor {
	case MySQL:
		return s.followsMySQL(gtid)
	case MariaDB:
		return s.followsMariaDB(gtid)
	}
	return false, fmt.Errorf("look for %s: %w: the set has no flavour", gtid, ErrFlavor)
}

// Last is the highest number of a source in the set, 0 when there is none. A
// source is "uuid" or "uuid:tag" for MySQL, and a domain's number for MariaDB.
func (s Set) Last(source string) uint64 {
	switch s.flavor {
	case MySQL:
		return s.lastMySQL(source)
	case MariaDB:
		return s.lastMariaDB(source)
	}
	return 0
}

// Contains tells whether every GTID of o is in s. An empty o always is.
func (s Set) Contains(o Set) bool {
	if o.IsEmpty() {
		return true
	}
	if s.flavor != o.flavor {
		return false
	}
	if s.flavor == MySQL {
		return s.containsSetMySQL(o)
	}
	return s.containsSetMariaDB(o)
}

// Equal tells whether both hold the same GTIDs. Empty sets are equal. MariaDB
// positions are equal when their GTIDs are, server number included.
func (s Set) Equal(o Set) bool {
	if s.IsEmpty() || o.IsEmpty() {
		return s.IsEmpty() && o.IsEmpty()
	}
	if s.flavor != o.flavor {
		return false
	}
	if s.flavor == MySQL {
		return s.equalMySQL(o)
	}
	return s.equalMariaDB(o)
}

// Union adds all of o to s, for MariaDB the higher position of each domain. It
// fails with ErrFlavor and no change when both have GTIDs of different flavours.
func (s *Set) Union(o Set) error {
	if s.flavor == "" {
		s.flavor = o.flavor
	}
	if s.flavor != o.flavor {
		if o.IsEmpty() {
			return nil
		}
		return fmt.Errorf("union of a %s and a %s set: %w", s.flavor, o.flavor, ErrFlavor)
	}
	if s.flavor == MySQL {
		s.unionMySQL(o)
	} else {
		s.unionMariaDB(o)
	}
	return nil
}

// Minus is a new set of what s has and o has not. For MariaDB it is s's position
// in each domain where s is ahead of o: what lies between the two is the
// difference. Sets of different flavours have nothing in common.
func (s Set) Minus(o Set) Set {
	if s.flavor != o.flavor {
		return s.Clone()
	}
	if s.flavor == MySQL {
		return s.minusMySQL(o)
	}
	return s.minusMariaDB(o)
}

// Valid tells whether the text is one GTID of the flavour, with a clear error
// when not.
func Valid(flavor, gtid string) error {
	var err error
	switch flavor {
	case MySQL:
		_, err = parseOne(gtid)
	case MariaDB:
		_, err = parsePosition(gtid)
	default:
		err = fmt.Errorf("%w: flavour %q: use %s or %s", ErrInvalid, flavor, MySQL, MariaDB)
	}
	return err
}
