package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
)

// Stats is a picture of the node for its status page.
type Stats struct {
	Name       string
	UUID       string
	Address    string // empty without a listener
	City       string
	State      State
	Generation uint64
	Segment    segment.Stats

	Connections int
	Refused     int64 // connections turned away because too many were open
	Broken      int64 // connections dropped because they did not speak the protocol
	Readers     int
	Writers     int
	PushedNear  int64         // bytes of entries sent to readers of the node's own city
	PushedFar   int64         // and of others
	Repaired    int64         // bytes fetched for repairs
	Missing     int           // copies that the last round of repair could not make; of the keeper
	Leader      bool          // the metadata has one, as far as the node knows
	Peers       []PeerStats   // the other nodes of the cluster
	Streams     []StreamStats // sorted by name
}

// StreamStats is one stream of the picture.
type StreamStats struct {
	Name     string
	Bounds   log.Bounds // as far as the node holds it
	Bytes    int64      // of its records on the node
	Replicas int
	Suspect  bool // damage may have taken entries of a replica
	Cursors  []log.Cursor
	// By the metadata as the node knows it: windows that are not restored, closed
	// segments without the copies that the rule asks for, stretches given up.
	Windows, Short, Gaps int
}

// PeerStats says whether another node answers this one.
type PeerStats struct {
	Name, City string
	Reachable  bool
}

// Stats is the present picture.
func (n *Node) Stats() Stats {
	out := Stats{
		Name: n.cfg.Name, UUID: n.store.UUID(), City: n.cfg.City, Generation: n.generation(), Segment: n.store.Stats(),
		PushedNear: n.pushedNear.Load(), PushedFar: n.pushedFar.Load(),
	}
	out.State, _ = n.standing.state()
	if n.listener != nil {
		out.Address = n.listener.Addr().String()
	}
	n.mu.Lock()
	out.Connections, out.Refused, out.Broken = len(n.conns), n.refused, n.broken
	out.Readers, out.Writers = n.readers, n.writers
	n.mu.Unlock()
	n.keeper.mu.Lock()
	out.Repaired, out.Missing = n.keeper.state.Copied, len(n.keeper.state.Missing)
	n.keeper.mu.Unlock()
	out.Leader = n.meta().Status().Leader != ""
	cities := map[string]string{}
	for _, c := range n.cfg.Cluster {
		cities[c.Name] = c.City
	}
	for _, p := range n.peers.list() {
		out.Peers = append(out.Peers, PeerStats{p.Name, cities[p.Name], p.alive})
	}
	view := n.view()
	at := map[string]int{}
	for _, name := range n.shelf.names() {
		at[name] = len(out.Streams)
		s := StreamStats{Name: name}
		if st, ok := view.Stream(name); ok {
			s.Cursors, s.Short, s.Gaps = st.Cursors, st.Short, len(st.Gaps)
			for _, w := range st.Windows {
				if w.RestoredAt.IsZero() {
					s.Windows++
				}
			}
		}
		if r := n.shelf.row(name, false); r != nil {
			s.Bounds, _ = r.bounds() // of a dead journal, too
		}
		out.Streams = append(out.Streams, s)
	}
	for _, info := range n.store.Replicas() {
		if i, ok := at[info.Stream]; ok {
			s := &out.Streams[i]
			s.Bytes += info.Bytes
			s.Replicas++
			s.Suspect = s.Suspect || info.Suspect
		}
	}
	return out
}

// labelledStreams caps the streams that get metrics of their own; the others
// only count in the totals.
const labelledStreams = 64

var (
	descAppends = desc("appends_total", "Entries made durable.")
	descBytes   = desc("append_bytes_total", "Bytes of the records made durable.")
	descSyncs   = desc("fsyncs_total", "Syncs of the journal.")
	descSyncSec = desc("fsync_seconds_total", "Time spent in syncs of the journal.")
	descGroup   = desc("group_records", "Entries per group commit.")
	descReaders = desc("readers", "Open readers, in process and remote.")
	descWriters = desc("writers", "Open writers, in process and remote.")
	descConns   = desc("connections", "Open connections.")
	descRefused = desc("connections_refused_total", "Connections turned away because too many were open.")
	descBroken  = desc("connections_broken_total", "Connections dropped because they did not speak the protocol.")
	descDisk    = desc("disk_bytes", "Bytes of all journal files.")
	descJournal = desc("journal_bytes", "Bytes of the journal files that hold entries.")
	descHeld    = desc("append_holds_seconds_total", "Time for which appends were slowed because segments did not leave the journal fast enough.")
	descStreams = desc("streams", "Streams on the node.")
	descSuspect = desc("suspect_segments", "Segments in which damage is known.")
	descTrimmed = desc("trimmed_entries_total", "Entries given up by retention.")
	descFull    = desc("out_of_space", "1 while there is no room for the next journal file.")
	descLAC     = desc("stream_lac", "Last confirmed entry of a stream.", "stream")
	descFirst   = desc("stream_first", "Oldest entry kept of a stream.", "stream")
	descStored  = desc("stream_bytes", "Bytes of a stream's records on the node.", "stream")
	descPushed  = desc("pushed_bytes_total", "Bytes of entries sent to readers, by whether they are of the node's city.", "city")
	descCopied  = desc("repaired_bytes_total", "Bytes fetched to make replicas whole.")
	descMissing = desc("missing_copies", "Copies that the last round of repair could not make, at the keeper.")
	descGen     = desc("generation", "Generation of the cluster as the node knows it.")
	descWindows = desc("unprotected_windows", "Stretches of a stream that were confirmed without its full rule and are not copied yet.", "stream")
	descShort   = desc("short_segments", "Closed segments of a stream without the copies that its rule asks for.", "stream")
	descGaps    = desc("gaps", "Stretches of a stream that an operator gave up.", "stream")
	descLeader  = desc("metadata_leader", "1 while the metadata has a leader, as far as the node knows.")
	descPeer    = desc("peer_reachable", "1 while another node of the cluster answers this one.", "peer", "peer_city")
	descStands  = desc("quarantined", "1 while the node stands in quarantine.")
	all         = []*prometheus.Desc{
		descAppends, descBytes, descSyncs, descSyncSec, descGroup, descReaders, descWriters, descConns, descRefused,
		descBroken, descDisk, descJournal, descHeld, descStreams, descSuspect, descTrimmed, descFull, descLAC, descFirst, descStored,
		descPushed, descCopied, descMissing, descGen, descStands, descWindows, descShort, descGaps, descLeader, descPeer,
	}
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("twinspan_log_"+name, help, labels, nil)
}

// Collector gives the node's metrics to a prometheus registry.
func (n *Node) Collector() prometheus.Collector { return collector{n} }

type collector struct{ node *Node }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.node.Stats()
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	g := s.Segment
	put(descAppends, prometheus.CounterValue, float64(g.Appends))
	put(descBytes, prometheus.CounterValue, float64(g.AppendBytes))
	put(descSyncs, prometheus.CounterValue, float64(g.Syncs))
	put(descSyncSec, prometheus.CounterValue, g.SyncTime.Seconds())
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, n := range g.GroupSizes {
		total += uint64(n)
		if i < len(g.GroupSizes)-1 {
			buckets[float64(int64(1)<<i)] = total
		}
	}
	ch <- prometheus.MustNewConstHistogram(descGroup, total, float64(g.Appends), buckets)
	put(descReaders, prometheus.GaugeValue, float64(s.Readers))
	put(descWriters, prometheus.GaugeValue, float64(s.Writers))
	put(descConns, prometheus.GaugeValue, float64(s.Connections))
	put(descRefused, prometheus.CounterValue, float64(s.Refused))
	put(descBroken, prometheus.CounterValue, float64(s.Broken))
	put(descDisk, prometheus.GaugeValue, float64(g.DiskBytes))
	put(descJournal, prometheus.GaugeValue, float64(g.JournalBytes))
	put(descHeld, prometheus.CounterValue, g.Held.Seconds())
	put(descStreams, prometheus.GaugeValue, float64(len(s.Streams)))
	put(descSuspect, prometheus.GaugeValue, float64(g.Suspect))
	put(descTrimmed, prometheus.CounterValue, float64(g.Trimmed))
	full := 0.0
	if g.Full {
		full = 1
	}
	put(descFull, prometheus.GaugeValue, full)
	put(descPushed, prometheus.CounterValue, float64(s.PushedNear), "own")
	put(descPushed, prometheus.CounterValue, float64(s.PushedFar), "other")
	put(descCopied, prometheus.CounterValue, float64(s.Repaired))
	put(descMissing, prometheus.GaugeValue, float64(s.Missing))
	put(descGen, prometheus.GaugeValue, float64(s.Generation))
	flag := func(d *prometheus.Desc, is bool, labels ...string) {
		v := 0.0
		if is {
			v = 1
		}
		put(d, prometheus.GaugeValue, v, labels...)
	}
	flag(descStands, s.State == StateQuarantined)
	flag(descLeader, s.Leader)
	for _, p := range s.Peers {
		flag(descPeer, p.Reachable, p.Name, p.City)
	}
	for _, st := range s.Streams[:min(len(s.Streams), labelledStreams)] {
		put(descLAC, prometheus.GaugeValue, float64(st.Bounds.LAC), st.Name)
		put(descFirst, prometheus.GaugeValue, float64(st.Bounds.First), st.Name)
		put(descStored, prometheus.GaugeValue, float64(st.Bytes), st.Name)
		put(descWindows, prometheus.GaugeValue, float64(st.Windows), st.Name)
		put(descShort, prometheus.GaugeValue, float64(st.Short), st.Name)
		put(descGaps, prometheus.GaugeValue, float64(st.Gaps), st.Name)
	}
}
