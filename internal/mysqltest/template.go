package mysqltest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/child"
)

// templateVersion changes when the way a template is made changes.
const templateVersion = "1"

// The small redo log keeps templates, and thereby copies, small; a server
// resizes it when it starts.
const templateRedo = "16M"

// template returns a folder with an initialised, cleanly closed data directory
// for the installation and these init settings, making it when there is none.
// Several processes may ask at once: one makes it, the others wait.
func template(ctx context.Context, in installation, initArgs []string) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{templateVersion, in.stamp, in.root}, initArgs...), "\x00")))
	root := filepath.Join(cache, "templates")
	dir := filepath.Join(root, string(in.flavor)+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	lock, err := lockFile(dir+".lock", true)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }() // only the lock goes
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := scratchDir("init-" + string(in.flavor))
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work); releaseScratch() }()
	if in.flavor.IsMariaDB() {
		err = bootstrapMariaDB(ctx, in, work, initArgs)
	} else {
		err = initialiseMySQL(ctx, in, work, initArgs)
	}
	if err != nil {
		return "", fmt.Errorf("initialise a %s data directory: %w", in.flavor, err)
	}
	// Copied first, since the scratch folder may be on another file system.
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := copyTree(filepath.Join(work, "data"), tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return dir, nil
}

const grantRoot = `CREATE USER IF NOT EXISTS 'root'@'%' IDENTIFIED BY '';
GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
`

// run waits for a command that ends by itself; its output goes into the error.
func run(ctx context.Context, in installation, stdin []byte, errorLog string, args ...string) error {
	c := in.command(in.daemon(), args...)
	var out bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &out, &out
	p, err := child.Start(c, false)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Kill())
	}
	if p.Err() != nil {
		return fmt.Errorf("%s: %w\n%s%s", in.daemon(), p.Err(), tail(errorLog, 30), lastLines(out.String(), 30))
	}
	return nil
}

func workArgs(in installation, work string) []string {
	return append(in.placeArgs(), "--datadir="+filepath.Join(work, "data"), "--tmpdir="+work, "--user="+userName(),
		"--log-error="+filepath.Join(work, "error.log"))
}

// userName: a server refuses to run as root unless told so.
func userName() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	if u := os.Getenv("USER"); u != "" {
		return u
	}
	return "nobody"
}

func initialiseMySQL(ctx context.Context, in installation, work string, initArgs []string) error {
	initFile := filepath.Join(work, "init.sql")
	if err := os.WriteFile(initFile, []byte(grantRoot), 0o600); err != nil {
		return err
	}
	errorLog := filepath.Join(work, "error.log")
	args := append(workArgs(in, work), "--initialize-insecure", "--init-file="+initFile,
		"--innodb-redo-log-capacity="+templateRedo, "--innodb-flush-method=nosync", "--innodb-use-native-aio=OFF")
	if err := run(ctx, in, nil, errorLog, append(args, initArgs...)...); err != nil {
		return err
	}
	// One start makes the TLS and RSA keys, which take a second each time.
	socket := filepath.Join(work, "s")
	args = append(workArgs(in, work), "--skip-log-bin", "--skip-networking", "--socket="+socket, "--mysqlx=OFF",
		"--innodb-redo-log-capacity="+templateRedo, "--innodb-flush-method=nosync", "--innodb-use-native-aio=OFF",
		"--performance-schema=OFF", "--pid-file="+filepath.Join(work, "pid"))
	c := in.command(in.daemon(), append(args, initArgs...)...)
	p, err := child.Start(c, false)
	if err != nil {
		return err
	}
	if err := awaitReady(ctx, p, socket, errorLog); err != nil {
		return errors.Join(err, p.Kill())
	}
	if err := p.Terminate(time.Minute); err != nil {
		return err
	}
	// A copy gets a server UUID of its own.
	return os.Remove(filepath.Join(work, "data", "auto.cnf"))
}

// bootstrapMariaDB does what mariadb-install-db does, without its need for an
// installed server.
func bootstrapMariaDB(ctx context.Context, in installation, work string, initArgs []string) error {
	if err := os.Mkdir(filepath.Join(work, "data"), 0o700); err != nil {
		return err
	}
	var sql bytes.Buffer
	sql.WriteString("CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n")
	for _, name := range []string{
		"system_tables", "performance_tables", "system_tables_data", "sys_schema", "maria_add_gis_sp_bootstrap",
	} {
		names := []string{"mysql_" + name, "mariadb_" + name, name}
		var script []byte
		var err error
		for _, n := range names {
			if script, err = os.ReadFile(filepath.Join(in.share(), n+".sql")); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		sql.Write(script)
		sql.WriteByte('\n')
	}
	sql.WriteString("FLUSH PRIVILEGES;\n" + grantRoot)
	sql.WriteString("CREATE OR REPLACE USER 'root'@'localhost' IDENTIFIED BY '';\n")
	sql.WriteString("GRANT ALL ON *.* TO 'root'@'localhost' WITH GRANT OPTION;\n")
	args := append(workArgs(in, work), "--bootstrap", "--max-allowed-packet=8M", "--net-buffer-length=16K",
		"--innodb-log-file-size="+templateRedo, "--innodb-use-native-aio=OFF")
	return run(ctx, in, sql.Bytes(), filepath.Join(work, "error.log"), append(args, initArgs...)...)
}
