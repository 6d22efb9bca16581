package node

// The verbs of wire.Admin that a node answers, with the types of their JSON.
const (
	AdminStatus   = "status"   // {} → ClusterStatus
	AdminRepair   = "repair"   // {} → Repaired: one round now, whoever is the keeper
	AdminTakeover = "takeover" // Attestation → Takeover
	AdminLeft     = "left"     // LeftQuestion → LeftAnswer: what the node has of closed segments that are about to be given up
	AdminRejoin   = "rejoin"   // RejoinOrder → Rejoined: a quarantined node ends; started again, it has a fresh identity and its old directory is kept aside
)
