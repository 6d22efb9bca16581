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
)

func (m Mode) String() string {
	switch m {
	case Transactions:
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
	case Ordered:
		return orderedVersion // no row's way depends on how keys are hashed
	}
	return RoutingVersion
}

const orderedVersion = 2000

// ModeOf is the mode of a Version; false: another program's.
func ModeOf(version int) (Mode, bool) {
	for _, m := range []Mode{Rows, Transactions, Ordered} {
		if m.Version() == version {
			return m, true
		}
	}
	return 0, false
}
