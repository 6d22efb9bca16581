package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/log"
)

// Log asks the log for its stream. A stream that does not exist yet is fine: the
// first producer makes it.
func Log(ctx context.Context, l log.Log, where, stream string) *Report {
	r := &Report{Subject: "log", Where: where}
	before := time.Now()
	b, err := l.Bounds(ctx, stream)
	took := time.Since(before).Round(time.Microsecond)
	switch {
	case errors.Is(err, log.ErrNoStream):
		r.ok("reachable", Mandatory, "answered in %s; the stream %s does not exist yet", took, stream)
		return r
	case err != nil:
		return r.unreachable(err)
	}
	r.ok("reachable", Mandatory, "answered in %s", took)
	r.ok("stream", Mandatory, "%s holds offsets %d to %d, epoch %d", stream, b.First, b.LAC, b.Epoch)
	cursors, err := l.Cursors(ctx, stream)
	if err != nil {
		r.unknown("cursors", Advisory, err)
		return r
	}
	for _, c := range cursors {
		switch {
		case c.Offset+1 < b.First:
			r.add(Finding{Check: "cursors", Severity: Mandatory, Outcome: Failed,
				Detail: fmt.Sprintf("group %s stands at %d, and the log begins at %d: entries it needs are gone", c.Group, c.Offset, b.First),
				Remedy: "load the target anew and start from its GTID set"})
		case time.Since(c.UpdatedAt) > 24*time.Hour && c.Offset < b.LAC:
			r.add(Finding{Check: "cursors", Severity: Advisory, Outcome: Failed,
				Detail: fmt.Sprintf("group %s has not moved from %d since %s", c.Group, c.Offset, c.UpdatedAt.UTC().Format(time.RFC3339)),
				Remedy: "the log keeps everything above it: start its consumer"})
		default:
			r.ok("cursors", Advisory, "group %s is %d entries behind", c.Group, b.LAC-c.Offset)
		}
	}
	return r
}

// Cluster adds what the log's nodes say is not as it should be. None of it stops a
// role: they wait for what they need.
func (r *Report) Cluster(problems []string) {
	if len(problems) == 0 {
		r.ok("cluster", Advisory, "all nodes answer, every stream is protected")
	}
	for _, p := range problems {
		r.add(Finding{Check: "cluster", Severity: Advisory, Outcome: Failed, Detail: comment(p), Remedy: "twinspan log status shows it in its place"})
	}
}

// Node looks at the disk of a storage node on this machine.
func Node(dir string, journalFileBytes int64) *Report {
	r := &Report{Subject: "node", Where: dir}
	place := dir
	for {
		info, err := os.Stat(place)
		if err == nil {
			if !info.IsDir() {
				r.add(Finding{Check: "dir", Severity: Mandatory, Outcome: Failed, Detail: place + " is not a directory",
					Remedy: "choose another node.dir"})
				return r
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || place == filepath.Dir(place) {
			return r.unreachable(err)
		}
		place = filepath.Dir(place)
	}
	if err := unix.Access(place, unix.W_OK|unix.X_OK); err != nil {
		r.add(Finding{Check: "dir", Severity: Mandatory, Outcome: Failed, Detail: fmt.Sprintf("%s can't be written: %v", place, err),
			Remedy: fmt.Sprintf("install -d -o twinspan %s", dir)})
	} else if place == dir {
		r.ok("dir", Mandatory, "%s can be written", dir)
	} else {
		r.ok("dir", Mandatory, "%s does not exist yet and will be made", dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(place, &st); err != nil {
		r.unknown("space", Mandatory, err)
		return r
	}
	free, total := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	detail := fmt.Sprintf("%d MiB free of %d MiB", free>>20, total>>20)
	switch {
	case free < 4*journalFileBytes:
		r.add(Finding{Check: "space", Severity: Mandatory, Outcome: Failed,
			Detail: detail + fmt.Sprintf(", four journal files need %d MiB", 4*journalFileBytes>>20),
			Remedy: "make room: a node without space refuses appends, and the backlog stays in the binlog"})
	case free < total/10:
		r.add(Finding{Check: "space", Severity: Advisory, Outcome: Failed, Detail: detail,
			Remedy: "make room, or lower the streams' bytes_max (twinspan topic policy)"})
	default:
		r.ok("space", Mandatory, "%s", detail)
	}
	switch st.Type {
	case unix.TMPFS_MAGIC, unix.NFS_SUPER_MAGIC:
		r.add(Finding{Check: "filesystem", Severity: Advisory, Outcome: Failed,
			Detail: "node.dir is on a filesystem that does not keep what fdatasync promises, or not on this machine",
			Remedy: "use a local disk"})
	default:
		r.ok("filesystem", Advisory, "local")
	}
	return r
}

// Secret is one file that must be readable and private.
type Secret struct {
	Key    string // of the configuration
	Path   string
	Public bool // a certificate: anybody may read it
}

// Process looks at the files that the configuration names.
func Process(secrets []Secret) *Report {
	r := &Report{Subject: "process"}
	for _, s := range secrets {
		if s.Path == "" {
			continue
		}
		info, err := os.Stat(s.Path)
		if err == nil {
			err = unix.Access(s.Path, unix.R_OK)
		}
		switch {
		case err != nil:
			r.add(Finding{Check: "file", Severity: Mandatory, Outcome: Failed, Detail: fmt.Sprintf("%s %s: %v", s.Key, s.Path, err),
				Remedy: "make the file, readable by the user that twinspan runs as"})
		case info.Mode().Perm()&0o007 != 0 && !s.Public:
			r.add(Finding{Check: "file", Severity: Advisory, Outcome: Failed,
				Detail: fmt.Sprintf("%s %s can be read by everybody", s.Key, s.Path), Remedy: "chmod 0640 " + s.Path})
		default:
			r.ok("file", Mandatory, "%s %s", s.Key, s.Path)
		}
		if s.Public && err == nil {
			r.certificates(s)
		}
	}
	return r
}

// certificates looks until when those of a file are good.
func (r *Report) certificates(s Secret) {
	rest, err := os.ReadFile(s.Path)
	if err != nil {
		r.unknown("certificate", Advisory, err)
		return
	}
	n := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			continue
		}
		n++
		f := Finding{Check: "certificate", Outcome: Failed, Detail: fmt.Sprintf("%s %s (%s) ends on %s", s.Key, s.Path, cert.Subject.CommonName, cert.NotAfter.UTC().Format(time.DateOnly)),
			Remedy: "put a new one there; it is read again for new connections"}
		switch left := time.Until(cert.NotAfter); {
		case left < 0:
			f.Severity = Mandatory
		case time.Now().Before(cert.NotBefore):
			f.Severity = Mandatory
			f.Detail = fmt.Sprintf("%s %s (%s) is not valid before %s", s.Key, s.Path, cert.Subject.CommonName, cert.NotBefore.UTC().Format(time.RFC3339))
			f.Remedy = "is this machine's clock right?"
		case left < 14*24*time.Hour:
			f.Severity = Advisory
		default:
			f.Severity, f.Outcome, f.Remedy = Mandatory, OK, ""
		}
		r.add(f)
	}
	if n == 0 {
		r.add(Finding{Check: "certificate", Severity: Mandatory, Outcome: Failed, Detail: fmt.Sprintf("%s %s holds no PEM certificate", s.Key, s.Path),
			Remedy: "write it in PEM form"})
	}
}
