// Package mysqltest runs real MySQL and MariaDB servers: for tests (Start,
// Shared), and for programs such as the demo and the benches (Run).
//
// The servers come from a cache that scripts/servers.sh fills. A data directory
// is initialised once, kept as a template, and copied for every server, so that
// one is ready in about a second. Servers listen on loopback, root has no
// password, and the settings are those twinspan wants of a source: ROW events,
// FULL images, FULL metadata, GTIDs. Every setting can be overridden.
//
// No server outlives the process that started it (unless Options.Detach), however
// that process ends.
package mysqltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// Flavor names a server of the cache.
type Flavor string

// The flavours that scripts/servers.sh installs.
const (
	MySQL97     Flavor = "mysql97"
	MariaDB1011 Flavor = "mariadb1011"
	MariaDB118  Flavor = "mariadb118"
)

// Flavors are all flavours, for tests that run on each.
func Flavors() []Flavor { return []Flavor{MySQL97, MariaDB1011, MariaDB118} }

// ParseFlavor accepts the names of Flavors.
func ParseFlavor(s string) (Flavor, error) {
	for _, f := range Flavors() {
		if string(f) == s {
			return f, nil
		}
	}
	return "", fmt.Errorf("unknown server flavour %q: use mysql97, mariadb1011 or mariadb118", s)
}

// ErrNotInstalled says that the cache has no such server.
var ErrNotInstalled = errors.New("server is not installed")

// IsMariaDB tells the two families apart.
func (f Flavor) IsMariaDB() bool { return strings.HasPrefix(string(f), "mariadb") }

// Server is the family as the rest of the code names it.
func (f Flavor) Server() server.Flavor {
	if f.IsMariaDB() {
		return server.MariaDB
	}
	return server.MySQL
}

// CacheDir is the folder of the servers: $TWINSPAN_SERVERS, or twinspan/servers
// in the user's cache folder.
func CacheDir() (string, error) {
	if d := os.Getenv("TWINSPAN_SERVERS"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the server cache, set TWINSPAN_SERVERS: %w", err)
	}
	return filepath.Join(d, "twinspan", "servers"), nil
}

// installation is an unpacked server.
type installation struct {
	flavor Flavor
	root   string // holds usr/ and the loader
	stamp  string // what was installed, as the installer wrote it
	loader string
	libs   string
}

func find(f Flavor) (installation, error) {
	if _, err := ParseFlavor(string(f)); err != nil {
		return installation{}, err
	}
	cache, err := CacheDir()
	if err != nil {
		return installation{}, err
	}
	root := filepath.Join(cache, string(f))
	stamp, err := os.ReadFile(filepath.Join(root, ".installed"))
	if err != nil {
		return installation{}, fmt.Errorf("%s in %s: %w; install it with: scripts/servers.sh %s", f, root, ErrNotInstalled, f)
	}
	in := installation{flavor: f, root: root, stamp: string(stamp)}
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib*/ld-linux-*.so.*"))
	if err == nil && len(loaders) == 0 {
		loaders, err = filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu/ld-linux-*.so.*"))
	}
	if err != nil || len(loaders) == 0 {
		return installation{}, fmt.Errorf("%s in %s has no program loader (damaged: remove the folder and run scripts/servers.sh %s)", f, root, f)
	}
	in.loader = loaders[0]
	libs, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	if err != nil || len(libs) == 0 {
		return installation{}, fmt.Errorf("%s in %s has no libraries (damaged: remove the folder and run scripts/servers.sh %s)", f, root, f)
	}
	in.libs = strings.Join([]string{libs[0], filepath.Join(root, "usr/lib/mysql"), filepath.Join(libs[0], "mysql")}, ":")
	return in, nil
}

// command runs a program of the installation through its own loader, so that
// the host's libc plays no part. The process is the program itself, no wrapper.
func (in installation) command(program string, args ...string) *exec.Cmd {
	return exec.Command(in.loader, append([]string{"--argv0", program, "--library-path", in.libs, program}, args...)...)
}

func (in installation) daemon() string {
	if in.flavor.IsMariaDB() {
		return filepath.Join(in.root, "usr/sbin/mariadbd")
	}
	return filepath.Join(in.root, "usr/sbin/mysqld")
}

// share is the folder with charsets, messages and the bootstrap scripts.
func (in installation) share() string {
	for _, d := range []string{"mysql", "mariadb"} {
		d = filepath.Join(in.root, "usr/share", d)
		if _, err := os.Stat(filepath.Join(d, "charsets")); err == nil {
			return d
		}
	}
	return filepath.Join(in.root, "usr/share/mysql")
}

// placeArgs tell the server where its own files are.
func (in installation) placeArgs() []string {
	return []string{
		"--no-defaults", "--basedir=" + filepath.Join(in.root, "usr"), "--lc-messages-dir=" + in.share(),
		"--character-sets-dir=" + filepath.Join(in.share(), "charsets"),
		"--plugin-dir=" + filepath.Join(in.root, "usr/lib/mysql/plugin"), "--secure-file-priv=",
	}
}

// Client is the command line of the flavour's own mysql client, for people who
// want to look at a server; nil when the installation has none.
func (f Flavor) Client(address string) []string {
	in, err := find(f)
	if err != nil {
		return nil
	}
	host, port, _ := strings.Cut(address, ":")
	for _, n := range []string{"mariadb", "mysql"} {
		p := filepath.Join(in.root, "usr/bin", n)
		if _, err := os.Stat(p); err == nil {
			c := in.command(p, "--no-defaults", "-h"+host, "-P"+port, "-uroot")
			return c.Args
		}
	}
	return nil
}
