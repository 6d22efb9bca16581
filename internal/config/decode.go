package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFileBytes bounds a configuration file.
const maxFileBytes = 1 << 20

// decoder fills a Config from a YAML document and gathers every problem instead
// of stopping at the first.
type decoder struct {
	file     string
	problems []Problem
	origins  map[string]string // path of a leaf → file:line:column
}

func (d *decoder) problem(n ast.Node, path, format string, args ...any) {
	var t *token.Token
	if n != nil {
		t = n.GetToken()
	}
	d.problems = append(d.problems, Problem{d.where(t), path, fmt.Sprintf(format, args...)})
}

func (d *decoder) where(t *token.Token) string {
	if t == nil || t.Position == nil {
		return d.file
	}
	return fmt.Sprintf("%s:%d:%d", d.file, t.Position.Line, t.Position.Column)
}

// document decodes all of a file over the values that c already has. It is false
// when the text is not YAML at all.
func (d *decoder) document(text []byte, c *Config) bool {
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) {
			d.problems = append(d.problems, Problem{d.where(y.GetToken()), "", oneLine(y.GetMessage())})
		} else {
			d.problems = append(d.problems, Problem{d.file, "", oneLine(err.Error())})
		}
		return false
	}
	docs := 0
	for _, doc := range f.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if docs++; docs > 1 {
			d.problem(doc.Body, "", "a second YAML document: a configuration is one document")
			break
		}
		d.value(doc.Body, "", reflect.ValueOf(c).Elem())
	}
	return true
}

// value decodes n into dst. An explicit null leaves the default in place.
func (d *decoder) value(n ast.Node, path string, dst reflect.Value) {
	switch v := n.(type) {
	case *ast.NullNode:
		return
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		d.problem(n, path, "anchors, aliases and tags are not used in this file: write the value out")
		return
	case *ast.MappingNode:
		d.mapping(n, v.Values, path, dst)
		return
	case *ast.MappingValueNode:
		d.mapping(n, []*ast.MappingValueNode{v}, path, dst)
		return
	case *ast.SequenceNode:
		d.sequence(v, path, dst)
		return
	}
	text, ok := scalarText(n)
	if !ok {
		d.problem(n, path, "a %s can't stand here", strings.ToLower(n.Type().String()))
		return
	}
	if path == "" {
		d.problem(n, "", "the file is not a mapping: write it as key: value lines")
		return
	}
	d.origins[path] = d.where(n.GetToken())
	if err := setText(dst, text); err != nil {
		d.problem(n, path, "%v", err)
	}
}

func (d *decoder) mapping(n ast.Node, values []*ast.MappingValueNode, path string, dst reflect.Value) {
	if dst.Type() == reflect.TypeFor[Shares]() {
		d.shares(n, values, path, dst)
		return
	}
	if dst.Type() == reflect.TypeFor[TablePolicies]() {
		d.tablePolicies(n, values, path, dst)
		return
	}
	if isLeaf(dst.Type()) && dst.Type() != reflect.TypeFor[ClusterNode]() {
		d.problem(n, path, "keys can't stand under %s: it takes %s", path, describe(dst.Type()))
		return
	}
	fields := fieldsOf(dst.Type())
	seen := map[string]bool{}
	for _, kv := range values {
		key, ok := scalarText(kv.Key)
		if !ok {
			d.problem(kv.Key, path, "a key must be a plain word")
			continue
		}
		sub := join(path, key)
		i, ok := fields[key]
		if !ok {
			d.unknown(kv.Key, path, key, dst.Type())
			continue
		}
		if seen[key] {
			d.problem(kv.Key, sub, "the key stands here a second time")
			continue
		}
		seen[key] = true
		if kv.Value != nil {
			d.value(kv.Value, sub, dst.Field(i))
		}
	}
}

// shares decodes numbers by city.
func (d *decoder) shares(n ast.Node, values []*ast.MappingValueNode, path string, dst reflect.Value) {
	d.origins[path] = d.where(n.GetToken())
	out := Shares{}
	for _, kv := range values {
		city, ok := scalarText(kv.Key)
		if !ok {
			d.problem(kv.Key, path, "a city must be a plain word")
			continue
		}
		sub := join(path, city)
		text, ok := "", false
		if kv.Value != nil {
			text, ok = scalarText(kv.Value)
		}
		number, err := strconv.ParseInt(text, 10, 16)
		_, twice := out[city]
		switch {
		case !ok || err != nil:
			d.problem(kv.Key, sub, "the number of nodes is missing: write it as city: number")
		case twice:
			d.problem(kv.Key, sub, "the city stands here a second time")
		default:
			d.origins[sub] = d.where(kv.Key.GetToken())
			out[city] = int(number)
		}
	}
	if len(out) == 0 {
		out = nil
	}
	dst.Set(reflect.ValueOf(out))
}

// unknown reports a key that does not exist, with the one that was meant: a
// similar word at this place, or the same word somewhere else.
func (d *decoder) unknown(n ast.Node, path, key string, t reflect.Type) {
	known := fieldNames(t)
	if c := nearest(key, known); c != "" {
		d.problem(n, join(path, key), "unknown key; did you mean %s?", c)
		return
	}
	for _, p := range Paths() {
		if p == key || strings.HasSuffix(p, "."+key) || strings.HasPrefix(p, key+".") {
			if strings.HasPrefix(p, key+".") {
				p = key
			}
			if p != join(path, key) {
				d.problem(n, join(path, key), "unknown key here; did you mean %s?", p)
				return
			}
		}
	}
	place := "at the top"
	if path != "" {
		place = "under " + path
	}
	d.problem(n, join(path, key), "unknown key; known %s: %s", place, strings.Join(known, ", "))
}

func (d *decoder) sequence(n *ast.SequenceNode, path string, dst reflect.Value) {
	if dst.Kind() != reflect.Slice {
		d.problem(n, path, "a list can't stand here: it takes %s", describe(dst.Type()))
		return
	}
	d.origins[path] = d.where(n.GetToken())
	out := reflect.Zero(dst.Type()) // an empty list is nil, like none
	for i, e := range n.Values {
		if dst.Type().Elem() == reflect.TypeFor[ClusterNode]() {
			sub := fmt.Sprintf("%s[%d]", path, i)
			d.origins[sub] = d.where(e.GetToken())
			item := reflect.New(dst.Type().Elem()).Elem()
			d.value(e, sub, item)
			out = reflect.Append(out, item)
			continue
		}
		text, ok := scalarText(e)
		if !ok {
			text, ok = colonText(e)
		}
		sub := fmt.Sprintf("%s[%d]", path, i)
		if !ok {
			d.problem(e, sub, "must be a plain word")
			continue
		}
		d.origins[sub] = d.where(e.GetToken())
		out = reflect.Append(out, reflect.ValueOf(text).Convert(dst.Type().Elem()))
	}
	dst.Set(out)
}

// scalarText is a scalar as it was written, quotes taken off.
func scalarText(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(v.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// colonText is an element such as 127.0.0.1:7040 of a list in braces. It has no
// space behind its colon and so is one word to YAML, but the parser makes a
// mapping of it.
func colonText(n ast.Node) (string, bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok || m.IsFlowStyle || len(m.Values) != 1 {
		return "", false
	}
	kv := m.Values[0]
	key, okKey := scalarText(kv.Key)
	text, okText := scalarText(kv.Value)
	if !okKey || !okText || kv.Start == nil || kv.Value.GetToken().Position.Column != kv.Start.Position.Column+1 {
		return "", false
	}
	return key + ":" + text, true
}

// setText sets a leaf from text: what a YAML scalar, an environment variable and
// a flag have in common. Lists are separated by commas.
func setText(dst reflect.Value, text string) error {
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(text)
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		dst.SetInt(n)
	case reflect.Bool:
		switch text {
		case "true", "yes", "on":
			dst.SetBool(true)
		case "false", "no", "off":
			dst.SetBool(false)
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case reflect.Slice:
		out := reflect.Zero(dst.Type())
		for w := range strings.SplitSeq(text, ",") {
			if w = strings.TrimSpace(w); w == "" {
				continue
			}
			item := reflect.New(dst.Type().Elem()).Elem()
			if err := setText(item, w); err != nil {
				return err
			}
			out = reflect.Append(out, item)
		}
		dst.Set(out)
	default:
		return fmt.Errorf("a value can't stand here: it takes %s", describe(dst.Type()))
	}
	return nil
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isLeaf tells a value from a group of keys.
func isLeaf(t reflect.Type) bool {
	return t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(textUnmarshaler)
}

func describe(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "a duration such as 2ms"
	case t == reflect.TypeFor[Bytes]():
		return "a size such as 64MiB"
	case t == reflect.TypeFor[ServerID]():
		return "auto or a number"
	case t == reflect.TypeFor[Shares]():
		return "cities with a number each, such as {a: 1, b: 1}"
	case t == reflect.TypeFor[TablePolicies]():
		return "tables with a policy each, such as {shop.stock: halt}"
	case t == reflect.TypeFor[ClusterNode]():
		return "keys: name, city, address, witness"
	case t == reflect.TypeFor[[]ClusterNode]():
		return "a list of nodes, each with name, city and address"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Struct:
		return "keys: " + strings.Join(fieldNames(t), ", ")
	}
	return "a word"
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if name := keyOf(t.Field(i)); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func fieldsOf(t reflect.Type) map[string]int {
	m := map[string]int{}
	for i := range t.NumField() {
		if name := keyOf(t.Field(i)); name != "" {
			m[name] = i
		}
	}
	return m
}

func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" {
		return ""
	}
	return name
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// leaf is one key that holds a value.
type leaf struct {
	path  string
	value reflect.Value
}

// leaves are all keys of c in the order of the struct.
func leaves(c *Config) []leaf {
	var out []leaf
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		if isLeaf(v.Type()) {
			out = append(out, leaf{path, v})
			return
		}
		for i := range v.NumField() {
			if name := keyOf(v.Type().Field(i)); name != "" {
				walk(v.Field(i), join(path, name))
			}
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return out
}

// Paths are all keys that hold a value, in the order of the struct.
func Paths() []string {
	var out []string
	for _, l := range leaves(Default()) {
		out = append(out, l.path)
	}
	return out
}
