package node

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

// Exported is a line of an export: an entry that this node has and the history
// that the cluster went on with has not.
type Exported struct {
	Stream          string     `json:"stream"`
	Segment         uint32     `json:"segment"`
	Offset          log.Offset `json:"offset"`
	Topic           string     `json:"topic"`
	Epoch           log.Epoch  `json:"epoch"`
	AppendedAt      time.Time  `json:"appended_at"`
	EndsTransaction bool       `json:"ends_transaction"`
	Confirmed       bool       `json:"confirmed"` // as far as this node knew
	Payload         []byte     `json:"payload"`   // base64
}

// export writes what the new history lacks of this node's replicas to files below
// its quarantine directory, one for each replica. It may be repeated.
func (n *Node) export(ctx context.Context) error {
	_, q := n.standing.state()
	if q == nil {
		return nil
	}
	history := n.history(q)
	if err := n.cfg.FS.MkdirAll(n.standing.path("")); err != nil {
		return err
	}
	var files []string
	var entries int64
	for _, name := range n.shelf.names() {
		r := n.shelf.row(name, false)
		if r == nil {
			continue
		}
		for _, s := range r.all() {
			file, count, err := n.exportOne(ctx, history, s.rep)
			if err != nil {
				return fmt.Errorf("stream %q segment %d: %w", name, s.number, err)
			}
			if count > 0 {
				files, entries = append(files, file), entries+count
			}
		}
	}
	if err := n.standing.finish(files, entries); err != nil {
		return err
	}
	n.log.Warn().Int64("entries", entries).Strs("files", files).Msg("what only this node has is exported")
	return nil
}

// history is the metadata that the cluster went on with.
func (n *Node) history(q *Quarantine) meta.Store {
	seeds := []string{q.LearntFrom}
	for _, c := range n.cfg.Cluster {
		if c.Name != n.cfg.Name && c.Address != q.LearntFrom {
			seeds = append(seeds, c.Address)
		}
	}
	return meta.NewClient(lookCaller{n.peers}, seeds)
}

// exportName is the file for what a replica has.
func (n *Node) exportName(info *segment.ReplicaInfo) string {
	return n.standing.path(fmt.Sprintf("%s-%d.jsonl", hex.EncodeToString([]byte(info.Stream)), info.Segment))
}

// unexported lists what this node has, nobody else has now, and the export lacks:
// whoever had it when the export was made may have lost it since.
func (n *Node) unexported(ctx context.Context, q *Quarantine) ([]Unexported, error) {
	history := n.history(q)
	out := []Unexported{}
	for _, name := range n.shelf.names() {
		r := n.shelf.row(name, false)
		if r == nil {
			continue
		}
		for _, s := range r.all() {
			info := s.rep.Info()
			from, lacks, err := exportFrom(ctx, history, &info)
			if err != nil {
				return out, fmt.Errorf("stream %q segment %d: %w", name, s.number, err)
			}
			if lacks && !slices.Contains(q.Files, n.exportName(&info)) {
				out = append(out, Unexported{name, s.number, from, info.Held})
			}
		}
	}
	return out, nil
}

// exportFrom is the first entry of a replica that the new history lacks; false:
// it has all of them.
func exportFrom(ctx context.Context, history meta.Store, info *segment.ReplicaInfo) (log.Offset, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if info.Held < info.First {
		return 0, false, nil
	}
	st, err := history.Stream(ctx, info.Stream)
	if errors.Is(err, log.ErrNoStream) {
		return info.First, true, nil
	}
	if err != nil {
		return 0, false, err
	}
	page, err := history.Segments(ctx, info.Stream, info.Segment, 1)
	if err != nil {
		return 0, false, err
	}
	if len(page) == 1 && page[0].Segment == info.Segment && page[0].Epoch == info.Epoch && page[0].First == info.First && slices.Equal(page[0].Members, info.Members) {
		g := page[0]
		if !g.Closed {
			// It can't be said yet which of its entries the history will have.
			return 0, false, fmt.Errorf("the segment is still open in generation %d: %w", st.Generation, log.ErrUnavailable)
		}
		nodes, err := history.Nodes(ctx)
		if err != nil {
			return 0, false, err
		}
		if g.Last >= g.First && !slices.ContainsFunc(g.Holders, func(h quorum.Member) bool {
			return slices.ContainsFunc(nodes, func(n meta.Node) bool { return n.Name == h.Node && n.UUID == h.UUID })
		}) {
			return info.First, true, nil // the history lists it, and nobody who is left has it
		}
		return g.Left() + 1, g.Left() < info.Held, nil
	}
	if info.Held < st.First && info.Segment < st.NextSegment && (len(page) == 0 || page[0].Segment != info.Segment) {
		return 0, false, nil // retention took it
	}
	return info.First, true, nil
}

func (n *Node) exportOne(ctx context.Context, history meta.Store, rep *segment.Replica) (string, int64, error) {
	info := rep.Info()
	from, lacks, err := exportFrom(ctx, history, &info)
	if err != nil || !lacks {
		return "", 0, err
	}
	name := n.exportName(&info)
	if err := n.cfg.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", 0, err
	}
	f, err := n.cfg.FS.Create(name)
	if err != nil {
		return "", 0, err
	}
	w := bufio.NewWriterSize(&fileWriter{f, 0}, 256<<10)
	count, err := writeEntries(ctx, w, rep, &info, from)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = n.cfg.FS.SyncDir(n.standing.path(""))
	}
	return name, count, err
}

func writeEntries(ctx context.Context, w *bufio.Writer, rep *segment.Replica, info *segment.ReplicaInfo, from log.Offset) (int64, error) {
	q := segment.Query{From: from, To: info.Held + 1, Unconfirmed: true, Topics: info.Kept}
	lines := json.NewEncoder(w)
	var entries []segment.Stored
	var buf []byte
	var count int64
	for q.From < q.To && ctx.Err() == nil {
		var next log.Offset
		var err error
		entries, buf, next, err = rep.Read(q, entries, buf)
		if errors.Is(err, log.ErrSuspect) {
			q.From++ // that one is lost; what lies behind it may not be
			continue
		}
		if err != nil {
			return count, err
		}
		for i := range entries {
			e := &entries[i]
			if err := lines.Encode(Exported{
				Stream: info.Stream, Segment: info.Segment, Offset: e.Offset, Topic: e.Topic.String(), Epoch: e.Epoch,
				AppendedAt: e.AppendedAt, EndsTransaction: e.EndsTransaction, Confirmed: e.Offset <= info.LAC, Payload: e.Payload,
			}); err != nil {
				return count, err
			}
			count++
		}
		if next == q.From {
			break
		}
		q.From = next
	}
	return count, ctx.Err()
}

// fileWriter appends to a file.
type fileWriter struct {
	file vfs.File
	at   int64
}

func (w *fileWriter) Write(b []byte) (int, error) {
	n, err := w.file.WriteAt(b, w.at)
	w.at += int64(n)
	return n, err
}

// writeFile writes a small file whole and makes its bytes durable.
func writeFile(vf vfs.FS, name string, b []byte) error {
	if err := vf.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := vf.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// errRejoin ends a node that is to start afresh.
var errRejoin = errors.New("the node was told to rejoin: start it again, it takes a fresh identity")

// rejoin makes a quarantined node end, and start with a fresh identity the next
// time. Its directory is kept aside. It is refused, with log.ErrProtocol, while the
// node has entries that nobody else has and that are not exported; then they are
// exported anew.
func (n *Node) rejoin(ctx context.Context, o RejoinOrder) (Rejoined, error) {
	state, q := n.standing.state()
	if state != StateQuarantined {
		return Rejoined{}, fmt.Errorf("node %q is not in quarantine: %w", n.cfg.Name, log.ErrProtocol)
	}
	left, err := n.unexported(ctx, q)
	out := Rejoined{Unexported: left}
	if o.Preview {
		return out, err
	}
	if _, real := n.cfg.FS.(vfs.OS); !real {
		return out, fmt.Errorf("node %q: its directory can't be moved: %w", n.cfg.Name, log.ErrProtocol)
	}
	switch {
	case o.LeaveBehind:
		n.log.Warn().Str("node", n.cfg.Name).Str("reason", o.Reason).Int("segments", len(left)).Msg("the node rejoins, and leaves behind what is not exported")
	case err != nil:
		return out, fmt.Errorf("node %q: what only it has can't be told now: %w", n.cfg.Name, err)
	case len(left) > 0:
		if err := n.standing.reopen(); err != nil {
			return out, err
		}
		x := left[0]
		return out, fmt.Errorf("node %q: nobody else has entries %d to %d of segment %d of stream %q (%d segments in all), and they are not exported: %w",
			n.cfg.Name, x.From, x.To, x.Segment, x.Stream, len(left), log.ErrProtocol)
	case !q.Exported:
		return out, fmt.Errorf("node %q: what only it has is not exported yet: %w", n.cfg.Name, log.ErrUnavailable)
	}
	return out, n.startAfresh()
}

// startAfresh ends the node, which has a fresh identity when it is started again.
func (n *Node) startAfresh() error {
	if err := writeFile(n.cfg.FS, n.standing.path(rejoinFile), []byte("rejoin\n")); err != nil {
		return err
	}
	if err := n.cfg.FS.SyncDir(n.standing.path("")); err != nil {
		return err
	}
	select {
	case n.leave <- errRejoin:
	default: // it was told already
	}
	return nil
}

const rejoinFile = "rejoin"

// rejoinIfTold moves the directory of a node aside that was told to rejoin.
func rejoinIfTold(cfg *Config) error {
	if _, real := cfg.FS.(vfs.OS); !real {
		return nil
	}
	_, err := os.Stat(filepath.Join(cfg.Dir, quarantineDir, rejoinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	aside, err := Rejoin(cfg.Dir)
	if err == nil {
		cfg.Logger.Warn().Str("node", cfg.Name).Str("kept", aside).Msg("the node rejoins with a fresh identity, its old directory is kept")
	}
	return err
}

// Rejoin moves a node's directory aside, so that it starts as a fresh member with
// a new identity. It returns where everything went. The node must not run, and its
// old identity has to be forgotten in the metadata, unless a takeover did.
func Rejoin(dir string) (aside string, err error) {
	lock, err := (vfs.OS{}).Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", fmt.Errorf("log directory %s: %w", dir, err)
	}
	aside = fmt.Sprintf("%s.before-%s", filepath.Clean(dir), time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(dir, aside); err != nil {
		return "", errors.Join(err, lock.Close())
	}
	return aside, errors.Join((vfs.OS{}).SyncDir(filepath.Dir(aside)), lock.Close())
}
