package config

import (
	_ "embed"
	"encoding"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
)

//go:embed example.yaml
var example string

// Example is a complete, commented file that is itself valid.
func Example() string { return example }

// Setting is one key and its effective value.
type Setting struct {
	Path   string `json:"key" yaml:"key"`
	Value  any    `json:"value" yaml:"value"`
	Origin string `json:"origin" yaml:"origin"`
}

// redacted stands for every secret that is shown.
const redacted = "(set, not shown)"

// Settings are all keys with their effective values, secrets redacted.
func (l *Loaded) Settings() []Setting {
	var out []Setting
	for _, lf := range leaves(l.Config) {
		s := Setting{Path: lf.path, Value: plain(lf.value), Origin: "default"}
		if strings.HasSuffix(lf.path, ".password") && lf.value.String() != "" {
			s.Value = redacted
		}
		if o := l.Origins[lf.path]; o != "" {
			s.Origin = o
		}
		out = append(out, s)
	}
	return out
}

// YAML is the effective configuration, secrets redacted. With origins every line
// says where its value comes from.
func (l *Loaded) YAML(origins bool) (string, error) {
	var b strings.Builder
	var open []string
	for _, s := range l.Settings() {
		parts := strings.Split(s.Path, ".")
		groups := parts[:len(parts)-1]
		same := 0
		for same < len(groups) && same < len(open) && groups[same] == open[same] {
			same++
		}
		for i := same; i < len(groups); i++ {
			fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), groups[i])
		}
		open = groups
		value, err := yaml.MarshalWithOptions(s.Value, yaml.Flow(true))
		if err != nil {
			return "", fmt.Errorf("show %s: %w", s.Path, err)
		}
		fmt.Fprintf(&b, "%s%s: %s", strings.Repeat("  ", len(groups)), parts[len(parts)-1], strings.TrimSpace(string(value)))
		if origins {
			fmt.Fprintf(&b, "  # %s", s.Origin)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// plain is a leaf's value in the types that every encoder knows.
func plain(v reflect.Value) any {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	switch v.Kind() {
	case reflect.Map:
		out := map[string]int{}
		for _, k := range v.MapKeys() {
			out[k.String()] = int(v.MapIndex(k).Int())
		}
		return out
	case reflect.Slice:
		if nodes, ok := v.Interface().([]ClusterNode); ok {
			return append([]ClusterNode{}, nodes...)
		}
		out := make([]string, v.Len())
		for i := range out {
			out[i] = v.Index(i).String()
		}
		return out
	case reflect.Bool:
		return v.Bool()
	case reflect.Int:
		return v.Int()
	}
	return v.String()
}
