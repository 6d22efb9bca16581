package node

// The verbs of wire.Admin that a node answers, with the types of their JSON.
const (
	AdminStatus   = "status"   // {} → ClusterStatus
	AdminRepair   = "repair"   // {} → Repaired: one round now; at the keeper, else log.ErrUnavailable names it
	AdminTakeover = "takeover" // Attestation → Takeover
	AdminRejoin   = "rejoin"   // {} → {}: of a quarantined node, with a fresh identity; its old directory is kept aside
)
