package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// envPrefix starts the name of every environment variable that sets a key.
const envPrefix = "TWINSPAN_"

// FileVariable names the environment variable that says where the file is.
const FileVariable = "TWINSPAN_CONFIG"

// Input is where a configuration comes from.
type Input struct {
	Path  string   // the file, "-" for standard input, or "" for none
	Env   []string // as os.Environ gives it
	Flags []string // key=value, such as logging.level=debug
	// Tool says that no role will run: what only roles need may be missing.
	Tool bool
}

// Loaded is a configuration that was found valid.
type Loaded struct {
	*Config
	Warnings []Problem
	// Origins says for each key that is not at its default where it was set:
	// file:line:column, the environment variable, or the flag.
	Origins map[string]string
}

// EnvName is the environment variable of a key.
func EnvName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// Load reads, overrides and checks a configuration. A configuration with
// problems is returned together with *Invalid; any other error means the file
// could not be read.
func Load(in Input) (*Loaded, error) {
	c := Default()
	d := &decoder{file: in.Path, origins: map[string]string{}}
	if in.Path != "" {
		text, err := readBounded(in.Path)
		if err != nil {
			return nil, err
		}
		if in.Path == "-" {
			d.file = "standard input"
		}
		if !d.document(text, c) {
			return &Loaded{Config: c}, &Invalid{d.problems}
		}
	}
	l := &Loaded{Config: c, Origins: d.origins}
	l.environment(d, in.Env)
	l.flags(d, in.Flags)
	c.complete()
	v := validator{c: c, origins: d.origins, tool: in.Tool}
	for _, p := range d.problems {
		v.clusterUnread = v.clusterUnread || strings.HasPrefix(p.Path, "node.cluster")
	}
	v.run()
	l.Warnings = append(l.Warnings, v.warnings...)
	// A key that could not be read keeps its default: do not complain about
	// that default as well.
	bad := map[string]bool{}
	for _, p := range d.problems {
		bad[p.Path] = true
	}
	for _, p := range v.problems {
		if !bad[p.Path] {
			d.problems = append(d.problems, p)
		}
	}
	if len(d.problems) > 0 {
		return l, &Invalid{d.problems}
	}
	return l, nil
}

func readBounded(path string) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		defer f.Close()
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("configuration %s: larger than 1 MiB, this can't be it", path)
	}
	return text, nil
}

func (l *Loaded) environment(d *decoder, env []string) {
	byName := map[string]leaf{}
	var names []string
	for _, lf := range leaves(l.Config) {
		byName[EnvName(lf.path)] = lf
		names = append(names, EnvName(lf.path))
	}
	for _, e := range env {
		name, text, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) || name == FileVariable {
			continue
		}
		lf, ok := byName[name]
		if !ok {
			// Not an error: an orchestrator may set variables of this
			// prefix for a service that happens to be called twinspan.
			what := "sets no key"
			if c := nearest(name, names); c != "" {
				what += "; did you mean " + c + "?"
			}
			l.Warnings = append(l.Warnings, Problem{"environment", name, what})
			continue
		}
		d.override(lf, "environment variable "+name, text)
	}
}

func (l *Loaded) flags(d *decoder, flags []string) {
	for _, f := range flags {
		path, text, ok := strings.Cut(f, "=")
		if !ok {
			d.problems = append(d.problems, Problem{"flag --set", f, "write it as key=value, such as logging.level=debug"})
			continue
		}
		found := false
		for _, lf := range leaves(l.Config) {
			if lf.path == path {
				d.override(lf, "flag", text)
				found = true
				break
			}
		}
		if !found {
			what := "unknown key"
			if c := nearest(path, Paths()); c != "" {
				what += "; did you mean " + c + "?"
			}
			d.problems = append(d.problems, Problem{"flag --set", path, what})
		}
	}
}

// override sets one key and forgets what the file had wrong about it.
func (d *decoder) override(lf leaf, where, text string) {
	kept := d.problems[:0]
	for _, p := range d.problems {
		if p.Path != lf.path {
			kept = append(kept, p)
		}
	}
	d.problems = kept
	d.origins[lf.path] = where
	if err := setText(lf.value, text); err != nil {
		d.problems = append(d.problems, Problem{where, lf.path, err.Error()})
	}
}
