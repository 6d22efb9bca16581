package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// issuer makes certificates for a test.
type issuer struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T, dir, name string) *issuer {
	t.Helper()
	i := &issuer{t: t, dir: dir}
	i.cert, i.key = i.make(name, true, time.Now().Add(time.Hour*24*365), nil)
	return i
}

// make writes NAME.crt and NAME.key, signed by parent, or by itself.
func (i *issuer) make(name string, authority bool, until time.Time, parent *issuer) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: authority, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer, signerKey := c, key
	if parent != nil {
		signer, signerKey = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer, &key.PublicKey, signerKey)
	if err != nil {
		i.t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		i.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: kb}} {
		if err := os.WriteFile(filepath.Join(i.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		i.t.Fatal(err)
	}
	return c, key
}

func TestLogOverTLS(t *testing.T) {
	dir := t.TempDir()
	good, bad := newIssuer(t, dir, "ca"), newIssuer(t, dir, "other-ca")
	year := time.Now().Add(365 * 24 * time.Hour)
	good.make("node", false, year, good)
	good.make("client", false, time.Now().Add(5*24*time.Hour), good)
	bad.make("stranger", false, year, bad)
	file := func(name string) string { return filepath.Join(dir, name) }
	source, target := mysqltest.Start(t, mysqltest.MariaDB1011), mysqltest.Start(t, mysqltest.MariaDB1011)
	servers := fmt.Sprintf("source: {address: '%s', user: root}\ntarget: {address: '%s', user: root}\nproducer: {start: earliest}\n", source.Address, target.Address)
	all := split(t, map[string]string{
		"node": nodeRole[:len(nodeRole)-2] + fmt.Sprintf(", tls: {cert: %s, key: %s, ca: %s}}\n", file("node.crt"), file("node.key"), file("ca.crt")),
		"work": "roles: [producer, consumer]\n" + servers,
	})
	// split has written a log section; TLS is set over it.
	tls := func(ca, name string) []string {
		return []string{"--set", "log.tls.ca=" + file(ca), "--set", "log.tls.cert=" + file(name+".crt"), "--set", "log.tls.key=" + file(name+".key")}
	}
	all["node"].start(t)
	all["work"].args = tls("ca.crt", "client")
	all["work"].start(t)
	all["work"].await(t, "the roles run", func(d *admin.Document) bool { return d.Ready })
	source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
	all["work"].verify(t)

	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"known":              {tls("ca.crt", "client"), 0},
		"plain":              {nil, 5},
		"unknown client":     {tls("ca.crt", "stranger"), 5},
		"unknown node":       {tls("other-ca.crt", "client"), 5},
		"without certifcate": {[]string{"--set", "log.tls.ca=" + file("ca.crt")}, 5},
		"no such file":       {tls("none.crt", "client"), 2},
	} {
		code, out, errOut := twinspan(t, append([]string{"topic", "list", "-c", all["work"].file}, c.args...)...)
		if code != c.code || code == 0 && !strings.Contains(out, "payments") {
			t.Errorf("%s: %d\n%s%s", name, code, out, errOut)
		}
	}
	code, out, _ := twinspan(t, append([]string{"doctor", "process", "-c", all["work"].file}, tls("ca.crt", "client")...)...)
	if code != 0 || !strings.Contains(out, "(client) ends on") || !strings.Contains(out, "advice") {
		t.Errorf("doctor: %d\n%s", code, out)
	}
}
