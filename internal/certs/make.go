package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Subject is one certificate to make.
type Subject struct {
	Name  string   `json:"name"` // its file, and its common name
	City  string   `json:"city,omitempty"`
	Node  bool     `json:"node"`            // may be dialled; the others can only dial
	Hosts []string `json:"hosts,omitempty"` // of a node: the names and IP addresses it is dialled by
}

// Order is a set to make in a directory. An authority that is there already
// signs the new certificates, so that a node can be added later.
type Order struct {
	Dir         string
	Subjects    []Subject
	Valid       time.Duration // of the certificates; never longer than their authority
	AuthorityOf time.Duration // how long a new authority is valid
	Force       bool          // replace certificates of these subjects; never the authority
	Now         time.Time
}

// Made is a file of a set.
type Made struct {
	Path     string    `json:"path"`
	Subject  string    `json:"subject"`
	City     string    `json:"city,omitempty"`
	Hosts    []string  `json:"hosts,omitempty"`
	Private  bool      `json:"private"`
	Replaced bool      `json:"replaced"`
	Kept     bool      `json:"kept"` // it was there already and stays
	NotAfter time.Time `json:"not_after"`
}

// ErrExists: files are in the way and Force is not set.
var ErrExists = errors.New("is there already")

// authorityName is the file of the authority, without its ending.
const authorityName = "ca"

// skew is by how much the clocks of a set may differ.
const skew = 5 * time.Minute

// Make makes the set and writes it: NAME.crt, which anybody may read, and
// NAME.key, which only its owner may; ca.crt and ca.key. With dry it only says
// what it would do. Nothing is written when anything is in the way; a file is
// either there whole or not at all.
func Make(o Order, dry bool) ([]Made, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ca, known, err := o.authority()
	if err != nil {
		return nil, err
	}
	until := o.Now.Add(o.Valid)
	if until.After(ca.cert.NotAfter) {
		until = ca.cert.NotAfter
	}
	out := []Made{
		{Path: ca.crt, Subject: ca.cert.Subject.CommonName, Kept: known, NotAfter: ca.cert.NotAfter.UTC()},
		{Path: ca.key, Subject: ca.cert.Subject.CommonName, Private: true, Kept: known, NotAfter: ca.cert.NotAfter.UTC()},
	}
	var inWay []string
	for _, s := range o.Subjects {
		for _, ending := range []string{".crt", ".key"} {
			m := Made{Path: filepath.Join(o.Dir, s.Name+ending), Subject: s.Name, City: s.City, Hosts: s.Hosts, Private: ending == ".key", NotAfter: until.UTC()}
			_, err := os.Lstat(m.Path)
			switch {
			case err == nil:
				m.Replaced = true
				inWay = append(inWay, m.Path)
			case !errors.Is(err, fs.ErrNotExist):
				return nil, err
			}
			out = append(out, m)
		}
	}
	if len(inWay) > 0 && !o.Force {
		return nil, fmt.Errorf("%s: %w", strings.Join(inWay, ", "), ErrExists)
	}
	if dry {
		return out, nil
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if !known {
		// The key first: an authority's certificate without its key could
		// sign nothing more, and would be in the way.
		if err := write(ca.key, ca.keyPEM, 0o600, false); err != nil {
			return nil, err
		}
		if err := write(ca.crt, ca.certPEM, 0o644, false); err != nil {
			return nil, err
		}
	}
	for _, s := range o.Subjects {
		certPEM, keyPEM, err := ca.issue(s, o.Now, until)
		if err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", s.Name, err)
		}
		base := filepath.Join(o.Dir, s.Name)
		if err := write(base+".key", keyPEM, 0o600, o.Force); err != nil {
			return nil, err
		}
		if err := write(base+".crt", certPEM, 0o644, o.Force); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (o Order) check() error {
	seen := map[string]bool{authorityName: true}
	for _, s := range o.Subjects {
		if s.Name == "" || strings.ContainsAny(s.Name, "/\\ ") || strings.HasPrefix(s.Name, ".") {
			return fmt.Errorf("%q is not a name for a certificate", s.Name)
		}
		if seen[s.Name] {
			return fmt.Errorf("two certificates of the name %s", s.Name)
		}
		seen[s.Name] = true
		if s.Node && len(s.Hosts) == 0 {
			return fmt.Errorf("node %s: by which host names or addresses is it reached?", s.Name)
		}
		if !s.Node && len(s.Hosts) > 0 {
			return fmt.Errorf("%s is dialled by nobody and needs no host name", s.Name)
		}
	}
	if o.Valid <= 0 || o.AuthorityOf <= 0 {
		return errors.New("a certificate must be valid for a time")
	}
	return nil
}

// signer is an authority with its key.
type signer struct {
	cert            *x509.Certificate
	private         *ecdsa.PrivateKey
	crt, key        string
	certPEM, keyPEM []byte // of a new one
}

// authority is the one that is in the directory, or a new one.
func (o Order) authority() (ca signer, known bool, err error) {
	ca = signer{crt: filepath.Join(o.Dir, authorityName+".crt"), key: filepath.Join(o.Dir, authorityName+".key")}
	_, errCrt := os.Stat(ca.crt)
	_, errKey := os.Stat(ca.key)
	switch {
	case errCrt == nil && errKey == nil:
		return ca, true, ca.load(o.Now)
	case errCrt == nil:
		return ca, false, fmt.Errorf("%s is there, but not its key %s: sign where the key is, or choose another directory", ca.crt, ca.key)
	case errKey == nil:
		return ca, false, fmt.Errorf("%s is there, but not its certificate %s", ca.key, ca.crt)
	}
	mark := make([]byte, 4) // so that two of one day can be told apart in errors
	if _, err := rand.Read(mark); err != nil {
		return ca, false, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("twinspan lab authority %x", mark), Organization: []string{"twinspan"}},
		NotBefore: o.Now.Add(-skew), NotAfter: o.Now.Add(o.AuthorityOf),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if ca.certPEM, ca.keyPEM, ca.private, err = sign(template, nil, nil); err != nil {
		return ca, false, err
	}
	block, _ := pem.Decode(ca.certPEM)
	ca.cert, err = x509.ParseCertificate(block.Bytes)
	return ca, false, err
}

func (ca *signer) load(now time.Time) error {
	all, err := ReadPEM(ca.crt)
	if err != nil {
		return err
	}
	ca.cert = all[0]
	if !ca.cert.IsCA {
		return fmt.Errorf("%s is not an authority", ca.crt)
	}
	if now.After(ca.cert.NotAfter) {
		return fmt.Errorf("%s has expired on %s: begin a new set in another directory", ca.crt, ca.cert.NotAfter.UTC().Format(time.DateOnly))
	}
	b, err := os.ReadFile(ca.key)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return fmt.Errorf("%s holds no PEM key", ca.key)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: %w", ca.key, err)
	}
	private, ok := k.(*ecdsa.PrivateKey)
	if !ok || !private.PublicKey.Equal(ca.cert.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", ca.key, ca.crt)
	}
	ca.private = private
	return nil
}

// issue makes a certificate for a subject. Those that are not nodes can't be used
// by a server: who steals a reader's can't pose as a node.
func (ca *signer) issue(s Subject, now, until time.Time) (certPEM, keyPEM []byte, err error) {
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: s.Name, Organization: []string{"twinspan"}, OrganizationalUnit: []string{"client"}},
		NotBefore: now.Add(-skew), NotAfter: until, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if c.NotBefore.Before(ca.cert.NotBefore) {
		c.NotBefore = ca.cert.NotBefore
	}
	if s.City != "" {
		c.Subject.Locality = []string{s.City}
	}
	if s.Node {
		c.Subject.OrganizationalUnit = []string{"node"}
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		for _, h := range s.Hosts {
			if ip := net.ParseIP(h); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else if !slices.Contains(c.DNSNames, h) {
				c.DNSNames = append(c.DNSNames, h)
			}
		}
	}
	certPEM, keyPEM, _, err = sign(c, ca.cert, ca.private)
	return certPEM, keyPEM, err
}

// sign completes a certificate with a new key; without a parent it signs itself.
func sign(c, parent *x509.Certificate, by *ecdsa.PrivateKey) (certPEM, keyPEM []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, nil, err
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, nil, err
	}
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		return nil, nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), key, nil
}

// write makes a file whole or not at all, by way of a temporary one beside it.
func write(path string, content []byte, mode fs.FileMode, replace bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	temporary := f.Name()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	switch {
	case err != nil:
	case replace:
		err = os.Rename(temporary, path)
	default:
		err = os.Link(temporary, path) // fails when there is one by now
	}
	if rm := os.Remove(temporary); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}
