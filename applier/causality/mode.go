package causality

// Mode is what the lanes are given, and what their stored places mean.
type Mode uint8

const (
	// Rows: each row change goes to the lane of its key.
	Rows Mode = iota
	// Transactions: each transaction goes, whole, to the lane of its first row.
	Transactions
	// Ordered: groups of consecutive transactions go to whatever lane is free,
	// and are committed in the order of the log.
	Ordered
	// As version 2 filled lanes by Rows and Transactions: what it left apart goes on
	// so until all lanes are at one place.
	rows2
	transactions2
)

// Older is the mode as version 2 knew it.
func (m Mode) Older() Mode {
	switch m {
	case Rows:
		return rows2
	case Transactions:
		return transactions2
	}
	return m
}

// ByRow: each row change has a lane of its own, not its transaction.
func (m Mode) ByRow() bool { return m == Rows || m == rows2 }

// blockBits: so many neighbours by the last number of their key, 1,024, go to one
// lane. A lane that inserts them fills page after page, as their source did; eight
// that take turns within a page split and latch each other's. Different blocks still
// spread over all lanes.
func (m Mode) blockBits() uint {
	if m == rows2 || m == transactions2 {
		return 6
	}
	return 10
}

func (m Mode) String() string {
	switch m {
	case Transactions, transactions2:
		return "transaction, in any order"
	case Ordered:
		return "transaction"
	}
	return "row"
}

// Version names what a lane's stored place says about which changes are
// durable: only who fills lanes the same way can go on from lanes that stand
// apart.
func (m Mode) Version() int {
	switch m {
	case Transactions:
		return 1000 + RoutingVersion
	case rows2:
		return 2
	case transactions2:
		return 1000 + 2
	case Ordered:
		return orderedVersion // no row's way depends on how keys are hashed
	}
	return RoutingVersion
}

const orderedVersion = 2000

// ModeOf is the mode of a Version; false: another program's.
func ModeOf(version int) (Mode, bool) {
	for _, m := range []Mode{Rows, Transactions, Ordered, rows2, transactions2} {
		if m.Version() == version {
			return m, true
		}
	}
	return 0, false
}
