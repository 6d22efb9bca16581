package config

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/consumer/route"
	"github.com/twinspan/twinspan/internal/server"
)

// validator checks the values of a decoded configuration. It looks at nothing
// but the configuration: no file, no network. That is the doctor's part.
type validator struct {
	c       *Config
	origins map[string]string
	tool    bool
	// clusterUnread: node.cluster is not what the file says, so nothing is held
	// against it.
	clusterUnread bool
	problems      []Problem
	warnings      []Problem
}

func (v *validator) problem(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{v.origins[path], path, fmt.Sprintf(format, args...)})
}

func (v *validator) warn(path, format string, args ...any) {
	v.warnings = append(v.warnings, Problem{v.origins[path], path, fmt.Sprintf(format, args...)})
}

var nameShape = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func (v *validator) name(path, s string) {
	if !nameShape.MatchString(s) {
		v.problem(path, "%q is not a name: use 1 to 63 of a-z, 0-9, dot, dash and underscore, the first a letter or digit", s)
	}
}

func (v *validator) run() {
	c := v.c
	if c.Stream == "" {
		v.problem("stream", "missing: name the MySQL set, such as payments")
	} else {
		v.name("stream", c.Stream)
	}
	if c.City != "" {
		v.name("city", c.City)
	}
	v.roles()
	if c.DataDir == "" || !filepath.IsAbs(c.DataDir) {
		v.problem("data_dir", "%q is not an absolute path", c.DataDir)
	}
	v.address("admin.listen", c.Admin.Listen)
	if host, _, err := net.SplitHostPort(c.Admin.Listen); err == nil && !loopback(host) {
		v.warn("admin.listen", "%s can be reached from other machines, and the admin listener asks nobody for a password", c.Admin.Listen)
	}
	v.log()
	v.doctor()
	if c.Has(RoleNode) {
		v.node()
	}
	if c.Has(RoleProducer) {
		v.endpoint("source", c.Source)
		if c.Primary.Address != "" {
			v.endpoint("primary", c.Primary)
		}
		v.producer()
	}
	if c.Has(RoleConsumer) {
		v.endpoint("target", c.Target)
		v.consumer()
	}
	if c.Has(RoleProducer) && c.Has(RoleConsumer) && c.Source.Address != "" && c.Source.Address == c.Target.Address {
		v.problem("target.address", "source and target are the same server, %s: its changes would be applied to itself", c.Target.Address)
	}
	v.logging()
}

func (v *validator) roles() {
	if len(v.c.Roles) == 0 && !v.tool {
		v.problem("roles", "missing: list the roles of this process, such as [producer, node, consumer]")
	}
	var known []string
	for _, r := range Roles {
		known = append(known, string(r))
	}
	for i, r := range v.c.Roles {
		path := fmt.Sprintf("roles[%d]", i)
		if v.origins[path] == "" {
			path = "roles"
		}
		switch {
		case !slices.Contains(Roles, r):
			hint := "use " + strings.Join(known, ", ")
			if n := nearest(string(r), known); n != "" {
				hint = "did you mean " + n + "?"
			}
			v.problem(path, "unknown role %q; %s", r, hint)
		case slices.Index(v.c.Roles, r) != i:
			v.problem(path, "role %s stands here a second time", r)
		}
	}
}

func (v *validator) log() {
	l := v.c.Log
	v.engine()
	for i, n := range l.Nodes {
		path := fmt.Sprintf("log.nodes[%d]", i)
		if v.origins[path] == "" {
			path = "log.nodes"
		}
		v.address(path, n)
	}
	if l.Bind != "" && net.ParseIP(l.Bind) == nil {
		v.problem("log.bind", "%q is not an IP address", l.Bind)
	}
	bytesBetween(v, "log.window_bytes", l.WindowBytes, 1<<20, 256<<20)
	if far := []string{"if-needed", "never", "anytime"}; !slices.Contains(far, l.Far) {
		v.problem("log.far", "unknown choice %q; use %s", l.Far, strings.Join(far, ", "))
	}
	v.policy()
	v.files("log.tls", map[string]string{"ca": l.TLS.CA, "cert": l.TLS.Cert, "key": l.TLS.Key})
	if (l.TLS.Cert == "") != (l.TLS.Key == "") {
		v.problem("log.tls.cert", "cert and key belong together: set both or none")
	}
	if l.TLS.CA == "" && l.TLS.Cert != "" {
		v.problem("log.tls.ca", "missing: cert and key are used only together with ca")
	}
	if v.c.Has(RoleNode) || l.Engine == EngineJetStream {
		return
	}
	if len(l.Nodes) == 0 {
		v.problem("log.nodes", "missing: this process has no node role, so it must be told where the log's nodes are")
	}
}

func (v *validator) node() {
	n := v.c.Node
	v.name("node.name", n.Name)
	v.address("node.listen", n.Listen)
	if n.Dir != "" && !filepath.IsAbs(n.Dir) {
		v.problem("node.dir", "%q is not an absolute path", n.Dir)
	}
	v.files("node.tls", map[string]string{"cert": n.TLS.Cert, "key": n.TLS.Key, "ca": n.TLS.CA})
	if (n.TLS.Cert == "") != (n.TLS.Key == "") {
		v.problem("node.tls.cert", "cert and key belong together: set both or none")
	}
	if n.TLS.CA != "" && n.TLS.Cert == "" {
		v.problem("node.tls.cert", "missing: ca is used only together with cert and key")
	}
	if n.TLS.Cert != "" && n.TLS.CA == "" && len(n.Cluster) > 1 {
		v.problem("node.tls.ca", "missing: the nodes of a cluster check each other's certificates with it")
	}
	if host, _, err := net.SplitHostPort(n.Listen); err == nil && !loopback(host) && n.TLS.CA == "" {
		v.warn("node.listen", "whoever reaches %s can read and write the log: set node.tls with a ca, or keep the network private", n.Listen)
	}
	bytesBetween(v, "node.journal_file_bytes", n.JournalFileBytes, 1<<20, 1<<30)
	if n.JournalBytes < 2*n.JournalFileBytes {
		v.problem("node.journal_bytes", "%s is less than two journal files of %s", n.JournalBytes, n.JournalFileBytes)
	}
	ways := []string{"s2", "zstd", "none"}
	if !slices.Contains(ways, n.Compression) {
		hint := "use " + strings.Join(ways, ", ")
		if near := nearest(n.Compression, ways); near != "" {
			hint = "did you mean " + near + "?"
		}
		v.problem("node.compression", "unknown compression %q; %s", n.Compression, hint)
	}
	bytesBetween(v, "node.repair_rate", n.RepairRate, 64<<10, 1<<40)
	v.cluster()
	if v.c.Admin.Listen == n.Listen {
		v.problem("node.listen", "%s is the admin listener's address", n.Listen)
	}
}

// files must be absolute: a service has no directory of its own to start from.
func (v *validator) files(path string, files map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(files)) {
		if f := files[key]; f != "" && !filepath.IsAbs(f) {
			v.problem(path+"."+key, "%q is not an absolute path", f)
		}
	}
}

func (v *validator) producer() {
	p := v.c.Producer
	v.start(p.Start)
	for i, id := range p.Skip {
		if !gtidSet(id) || strings.ContainsAny(id, ", ") {
			path := fmt.Sprintf("producer.skip[%d]", i)
			if v.origins[path] == "" {
				path = "producer.skip"
			}
			v.problem(path, "%q is not a GTID", id)
		}
	}
	bytesBetween(v, "producer.batch_bytes_max", p.BatchBytesMax, 1<<10, 16<<20)
	bytesBetween(v, "producer.transaction_chunk_bytes", p.TransactionChunkBytes, 64<<10, 16<<20)
	durationUpTo(v, "producer.batch_delay", p.BatchDelay, 10*time.Second)
}

func (v *validator) start(s string) {
	if s == "earliest" || s == "current" || gtidSet(s) {
		return
	}
	hint := "use earliest, current, or a GTID set"
	if n := nearest(s, []string{"earliest", "current"}); n != "" {
		hint = "did you mean " + n + "?"
	}
	v.problem("producer.start", "%q: %s", s, hint)
}

// gtidSet tells whether s is a GTID set of either flavour that is not empty.
func gtidSet(s string) bool {
	for _, flavor := range []server.Flavor{server.MySQL, server.MariaDB} {
		if set, err := gtid.Parse(string(flavor), s); err == nil && !set.IsEmpty() {
			return true
		}
	}
	return false
}

func (v *validator) consumer() {
	if v.c.Consumer.Group == "" {
		v.problem("consumer.group", "missing: name the reader, such as city-b (or set city)")
	} else {
		v.name("consumer.group", v.c.Consumer.Group)
	}
	a := v.c.Applier
	between(v, "apply.lanes", a.Lanes, 1, 256)
	between(v, "apply.batch_rows", a.BatchRows, 1, 10000)
	bytesBetween(v, "apply.batch_bytes", a.BatchBytes, 1<<10, 64<<20)
	durationUpTo(v, "apply.batch_delay", a.BatchDelay, 10*time.Second)
	if a.BatchTime < Duration(time.Millisecond) || a.BatchTime > Duration(time.Minute) {
		v.problem("apply.batch_time", "%s: 1ms to 1m", a.BatchTime)
	}
	if a.Atomicity != "row" && a.Atomicity != "transaction" {
		v.problem("apply.atomicity", "%q: row or transaction", a.Atomicity)
	}
	between(v, "apply.throttle.rows_per_second", a.Throttle.RowsPerSecond, 0, 1<<30)
	between(v, "apply.throttle.threads_running", a.Throttle.ThreadsRunning, 0, 1<<20)
	durationUpTo(v, "apply.throttle.replica_lag", a.Throttle.ReplicaLag, 30*24*time.Hour)
	for i, address := range a.Throttle.Replicas {
		v.address(fmt.Sprintf("apply.throttle.replicas[%d]", i), address)
	}
	v.conflicts()
	v.rules(a)
}

// rules checks the filters and routes.
func (v *validator) rules(a Applier) {
	at := func(list string, i int) string {
		key := "apply.filters." + list
		if list == "routes" {
			key = "apply.routes"
		}
		if path := fmt.Sprintf("%s[%d]", key, i); v.origins[path] != "" {
			return path
		}
		return key
	}
	_, problems := route.New(a.Rules())
	for _, p := range problems {
		v.problem(at(p.List, p.Index), "%s", p.Text)
	}
	for i, id := range a.Filters.Done {
		if !gtidSet(id) || strings.ContainsAny(id, ", ") {
			v.problem(at("done", i), "%q is not a GTID", id)
		}
	}
	for _, s := range []struct {
		list     string
		patterns []string
	}{{"skip_insert", a.Filters.SkipInsert}, {"skip_update", a.Filters.SkipUpdate}, {"skip_delete", a.Filters.SkipDelete}} {
		if len(s.patterns) > 0 {
			v.warn("apply.filters."+s.list, "%s will differ from the source, and verify does not compare them", strings.Join(s.patterns, ", "))
		}
	}
}

func (v *validator) endpoint(path string, e server.Endpoint) {
	switch {
	case e.Address == "":
		v.problem(path+".address", "missing: host:port, or the path of a socket")
	case strings.HasPrefix(e.Address, "/"):
	default:
		v.address(path+".address", e.Address)
	}
	if e.User == "" {
		v.problem(path+".user", "missing")
	}
	if e.Password != "" && e.PasswordFile != "" {
		v.problem(path+".password", "set beside password_file: keep one of the two")
	} else if e.Password != "" && strings.Contains(v.origins[path+".password"], ":") {
		v.warn(path+".password", "the password stands in the file: better password_file, or %s", EnvName(path+".password"))
	}
	if e.PasswordFile != "" && !filepath.IsAbs(e.PasswordFile) {
		v.problem(path+".password_file", "%q is not an absolute path", e.PasswordFile)
	}
	v.files(path+".tls", map[string]string{"ca": e.TLS.CA, "cert": e.TLS.Cert, "key": e.TLS.Key})
	modes := []string{"disabled", "preferred", "required", "verify"}
	if e.TLS.Mode != "" && !slices.Contains(modes, e.TLS.Mode) {
		hint := "use " + strings.Join(modes, ", ")
		if n := nearest(e.TLS.Mode, modes); n != "" {
			hint = "did you mean " + n + "?"
		}
		v.problem(path+".tls.mode", "unknown mode %q; %s", e.TLS.Mode, hint)
	}
	if (e.TLS.Cert == "") != (e.TLS.Key == "") {
		v.problem(path+".tls.cert", "cert and key belong together: set both or none")
	}
	if e.TLS.Mode != "required" && e.TLS.Mode != "verify" && (e.TLS.CA != "" || e.TLS.Cert != "") {
		v.problem(path+".tls.mode", "ca and cert are used only with mode required or verify")
	}
}

var checkShape = regexp.MustCompile(`^(source|target|log|node|process)\.[a-z_]+$`)

func (v *validator) doctor() {
	for i, name := range v.c.Doctor.Accept {
		if !checkShape.MatchString(name) {
			path := fmt.Sprintf("doctor.accept[%d]", i)
			if v.origins[path] == "" {
				path = "doctor.accept"
			}
			v.problem(path, "%q is not the name of a check: write it as doctor prints it, such as target.events", name)
		}
	}
}

func (v *validator) logging() {
	l := v.c.Logging
	levels := []string{"trace", "debug", "info", "warn", "error"}
	if _, err := zerolog.ParseLevel(l.Level); err != nil || !slices.Contains(levels, l.Level) {
		v.problem("logging.level", "unknown level %q; use %s", l.Level, strings.Join(levels, ", "))
	}
	if !slices.Contains([]string{"auto", "json", "console"}, l.Format) {
		v.problem("logging.format", "unknown format %q; use auto, json or console", l.Format)
	}
}

func (v *validator) address(path, s string) {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		v.problem(path, "%q is not an address: write host:port", s)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && !strings.HasSuffix(path, ".listen") {
		v.problem(path, "%q is not a port from 1 to 65535", port)
	}
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func between(v *validator, path string, n, low, high int) {
	if n < low || n > high {
		v.problem(path, "%d is out of range: %d to %d", n, low, high)
	}
}

func bytesBetween(v *validator, path string, n, low, high Bytes) {
	if n < low || n > high {
		v.problem(path, "%s is out of range: %s to %s", n, low, high)
	}
}

func durationUpTo(v *validator, path string, d Duration, high time.Duration) {
	if d.Std() > high {
		v.problem(path, "%s is out of range: 0s to %s", d, Duration(high))
	}
}
