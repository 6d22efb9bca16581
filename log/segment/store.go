// Package segment keeps the entries of a storage node on disk, as replicas of
// segments: one journal shared by all of them, group commit, recovery, indexes,
// and compressed files of their own for segments that are closed. It knows no
// network. DESIGN.md of package log says why it is built this way.
package segment

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/vfs"
)

// Config of a Store. Zero values take the defaults named.
type Config struct {
	Dir  string // made when missing; nothing else may live in it
	Name string // the node's name; a directory made under another one is refused

	FileBytes  int64         // of a journal file; 64 MiB; 1 MiB to 1 GiB
	GroupBytes int           // most bytes of one group commit; 4 MiB; one record may be more
	SpareFiles int           // pre-written files kept ready; 1; of those that become free, up to three quarters of JournalBytes
	IdleCommit time.Duration // the last group is proven durable after this much silence; 20ms

	JournalBytes int64         // segments leave the journal while its files are larger; 1 GiB; at twice that appends are slowed
	ClosedMax    int           // or while it has more of them than this; 256
	BlockBytes   int           // of records compressed together, where they leave; 256 KiB
	Compression  Compression   // of these blocks; S2
	TidyEvery    time.Duration // the journal is looked at so often, besides; 10s

	IndexCacheBytes int64         // indexes of sealed files kept in memory; 64 MiB
	OpenFilesMax    int           // sealed files, and as many segments' own files, kept open; 256
	RetryEvery      time.Duration // after running out of space; 1s

	FS     vfs.FS           // the operating system's by default
	Now    func() time.Time // time.Now
	Logger zerolog.Logger
}

func (c Config) withDefaults() Config {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.FileBytes, 64<<20)
	def(&c.JournalBytes, 1<<30)
	def(&c.IndexCacheBytes, 64<<20)
	dur(&c.IdleCommit, 20*time.Millisecond)
	dur(&c.TidyEvery, 10*time.Second)
	dur(&c.RetryEvery, time.Second)
	if c.GroupBytes == 0 {
		c.GroupBytes = 4 << 20
	}
	if c.SpareFiles == 0 {
		c.SpareFiles = 1
	}
	if c.OpenFilesMax == 0 {
		c.OpenFilesMax = 256
	}
	if c.ClosedMax == 0 {
		c.ClosedMax = 256
	}
	if c.BlockBytes == 0 {
		c.BlockBytes = 256 << 10
	}
	if c.FS == nil {
		c.FS = vfs.OS{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// fileBytesMin keeps tests fast and files sensible: two header pages and room.
const fileBytesMin = 32 << 10

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("log directory is not set")
	case c.Name == "":
		return errors.New("node name is not set")
	case c.FileBytes < fileBytesMin || c.FileBytes > FileBytesMax || c.FileBytes%page != 0:
		return fmt.Errorf("journal file of %d bytes: want a multiple of %d from %d to %d", c.FileBytes, page, fileBytesMin, FileBytesMax)
	case c.GroupBytes < page || int64(c.GroupBytes) > FileBytesMax/4:
		return fmt.Errorf("group of %d bytes: want %d to %d", c.GroupBytes, page, FileBytesMax/4)
	case c.JournalBytes < 0 || c.ClosedMax < 0:
		return errors.New("limits of the journal must not be negative")
	case c.BlockBytes < page || c.BlockBytes > 16<<20:
		return fmt.Errorf("block of %d bytes: want %d to %d", c.BlockBytes, page, 16<<20)
	}
	return nil
}

// Store is the journal of one node and all that is derived from it. It is safe
// for concurrent use. Open recovers, Run works, Close ends.
type Store struct {
	cfg  Config
	fs   vfs.FS
	log  zerolog.Logger
	lock io.Closer
	node [16]byte

	mu       sync.Mutex
	replicas map[ID]*Replica
	nums     map[uint32]*Replica // those with a line in the meta, by their number
	floors   map[string]floor
	shelves  map[string]ranges // segments that are wholly in their own files, by stream
	stored   int64             // bytes of all own files, and of the records in them
	raw      int64
	opens    map[*archive]struct{} // own files whose handle is open
	// The generation asked for, and the one that is durable.
	generation, generationSafe uint64
	files                      []*file       // ascending ids; the last one is active
	filling                    *group        // takes appends; the committer swaps it for idle
	idle                       *group        // nil while the committer writes it
	room                       chan struct{} // owner: the Store; closed and replaced when waiting appends should look again
	fault                      error         // why the journal is dead; never cleared
	closing                    bool
	spares                     []*file // pre-written, not in the journal
	reserve                    *file   // for an Open on a full disk; nil while there is no space for it
	need                       int64   // bytes of a spare the committer waits for; 0: none
	full                       error   // why there is no spare: out of space
	lent                       bool    // the spares' space is needed for something else just now
	nextID                     uint32  // of replicas
	newID                      uint64  // id of the newest file ever activated
	active                     *file   // the last of files; replaced by the committer
	released                   []*file // to be recycled once nobody reads them
	deferred                   []*file // not needed, but the meta on disk still lists them
	spareSeq                   uint64  // numbers the names of spares
	metaSeq                    uint64  // version of the state in memory
	opened                     int     // sealed files whose handle is open
	cached                     int64   // bytes of loaded indexes
	clock                      uint64  // ticks with every use of a sealed file
	counts                     counts
	moving                     bool         // a segment is on its way out of the journal
	closedCount                int          // closed replicas in the journal, when it was looked at last
	written                    atomic.Int64 // when a group became durable last, ns since 1970

	metaMu  sync.Mutex // one writer of meta; taken before mu
	meta    *metaStore
	metaEnd uint64 // newest version on disk

	// Signals, one token each: owner the Store, never closed.
	work   chan struct{} // the filling group got its first record
	supply chan struct{} // the supplier should look at spares and released files
	chores chan struct{} // the keeper should look at indexes and the journal's size
	spared chan struct{} // a spare is there, or there is no space

	// Only the committer, and Open before it.
	at       int64 // where the next group starts in the active file
	sequence uint64
	prevAt   int64
	prev     []touch
	unproven bool // the last group has no group behind it
	prover   *group

	packer  *packer // of replicas' own files
	scratch scratch

	rested time.Time // when the keeper rested last, or began; only its goroutine

	// Only Open.
	doubts   []doubt
	missing  []uint64 // ids of journal files that should be there
	landings map[*Replica]*landing

	stop     chan struct{} // closed by Close
	stopOnce sync.Once
	running  bool
	ended    chan struct{} // closed when Run has torn everything down
}

// Open recovers the directory, or makes a new one, and returns the store with a
// fresh journal file ready. Errors: log.ErrIdentity for a directory that belongs
// to another node or to something else, vfs.ErrLocked when another process has
// it open, log.ErrSuspect when the meta is damaged beyond its two copies,
// log.ErrFull when there is no room for a journal file.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, fs: cfg.FS, log: cfg.Logger,
		replicas: map[ID]*Replica{}, nums: map[uint32]*Replica{}, floors: map[string]floor{}, shelves: map[string]ranges{},
		opens:   map[*archive]struct{}{},
		filling: newGroup(min(cfg.GroupBytes, 1<<20)), idle: newGroup(min(cfg.GroupBytes, 1<<20)),
		room:   make(chan struct{}),
		prover: newGroup(page), chores: make(chan struct{}, 1),
		work: make(chan struct{}, 1), supply: make(chan struct{}, 1), spared: make(chan struct{}, 1),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	var err error
	if s.packer, err = newPacker(cfg.Compression); err != nil {
		return nil, err
	}
	if err := s.fs.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("log directory: %w", err)
	}
	lock, err := s.fs.Lock(s.path("lock"))
	if err != nil {
		return nil, fmt.Errorf("log directory: %w", err)
	}
	s.lock = lock
	if err := s.recover(); err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w: %w", log.ErrFull, err)
		}
		return nil, errors.Join(fmt.Errorf("open log in %s: %w", cfg.Dir, err), s.closeFiles())
	}
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

// Run commits, prepares files, and moves closed segments out of the journal until
// ctx ends or Close is called; then it commits what is queued and closes everything. It returns the
// error that killed the journal: a failed write or sync is never tried again,
// because nothing is known about the bytes any more.
func (s *Store) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return fmt.Errorf("run log twice: %w", log.ErrProtocol)
	}
	if s.closing { // Close came first and has done all
		defer s.mu.Unlock()
		return s.fault
	}
	s.running = true
	s.mu.Unlock()
	defer close(s.ended)

	helpersStop := make(chan struct{}) // closed here once the committer is done
	var helpers sync.WaitGroup
	helpers.Go(func() { s.supplyLoop(helpersStop) })
	helpers.Go(func() { s.choreLoop(helpersStop) })
	committed := make(chan struct{}) // closed by the committer's goroutine
	go func() {
		defer close(committed)
		s.commitLoop()
	}()
	select {
	case <-ctx.Done():
	case <-s.stop:
	case <-committed: // the journal died
	}
	s.refuse()
	<-committed
	close(helpersStop)
	helpers.Wait()
	if s.Fault() == nil {
		// What was confirmed since the last record or change of the meta.
		if err := s.persist(); err != nil && !errors.Is(err, log.ErrFull) {
			s.die(err)
		}
	}
	err := s.Fault()
	return errors.Join(err, s.closeFiles())
}

// refuse ends the taking of appends.
func (s *Store) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	s.wakeLocked()
	signal(s.work)
	for _, r := range s.replicas {
		r.notify()
	}
}

// Close ends Run and waits for it, or closes a store that never ran. It is safe
// to call it again.
func (s *Store) Close() error {
	s.stopOnce.Do(func() { close(s.stop) })
	s.mu.Lock()
	running, closed := s.running, s.closing
	s.closing = s.closing || !running // so that Run, if it comes now, does nothing
	s.mu.Unlock()
	if running {
		<-s.ended
		return nil // Run reports
	}
	if closed {
		return nil
	}
	s.refuse()
	return s.closeFiles()
}

// Fault is why the journal is dead; nil while it lives.
func (s *Store) Fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// die records the first fatal error and wakes everyone.
func (s *Store) die(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dieLocked(err)
}

func (s *Store) dieLocked(err error) {
	if s.fault != nil {
		return
	}
	s.fault = fmt.Errorf("journal in %s is dead: %w", s.cfg.Dir, err)
	s.log.Error().Err(err).Str("dir", s.cfg.Dir).Msg("the journal is dead: restart the process, it will recover what is durable")
	s.wakeLocked()
	signal(s.work)
	signal(s.spared)
	for _, r := range s.replicas {
		r.notify()
	}
}

// aliveLocked is nil while the store takes changes.
func (s *Store) aliveLocked() error {
	if s.fault != nil {
		return fmt.Errorf("%w: %w", log.ErrUnavailable, s.fault)
	}
	if s.closing {
		return fmt.Errorf("log store: %w", log.ErrClosed)
	}
	return nil
}

// wakeLocked lets waiting appends look again.
func (s *Store) wakeLocked() {
	close(s.room)
	s.room = make(chan struct{})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Store) closeFiles() error {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	s.mu.Lock()
	files := slices.Concat(s.files, s.spares, s.released, s.deferred)
	if s.reserve != nil {
		files = append(files, s.reserve)
	}
	s.files, s.spares, s.released, s.deferred, s.reserve = nil, nil, nil, nil, nil
	for a := range s.opens {
		if err := a.handle.Close(); err != nil {
			s.log.Warn().Err(err).Str("file", a.path).Msg("close of a segment's file failed; nothing was unwritten in it")
		}
		a.handle = nil
	}
	clear(s.opens)
	s.mu.Unlock()
	var errs []error
	for _, f := range files {
		if f.handle != nil {
			errs = append(errs, f.handle.Close())
		}
	}
	if s.meta != nil {
		errs = append(errs, s.meta.close())
		s.meta = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// UUID is the directory's identity, drawn when it was made.
func (s *Store) UUID() string { return hex.EncodeToString(s.node[:]) }

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func newIdentity() (id [16]byte, err error) {
	_, err = rand.Read(id[:])
	return id, err
}
