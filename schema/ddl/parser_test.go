package ddl

import (
	"slices"
	"strings"
	"testing"

	"github.com/pingcap/tidb/pkg/parser"
	"github.com/pingcap/tidb/pkg/parser/ast"
	_ "github.com/pingcap/tidb/pkg/parser/test_driver"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// TestAgainstAParser compares with a full parser, for the statements that it
// understands: it must name the same tables.
func TestAgainstAParser(t *testing.T) {
	p := parser.New()
	understood := 0
	for _, s := range samples(t) {
		if s.flavors == "a" || s.class == Admin || s.class == Maintenance || s.class == Flush {
			continue
		}
		nodes, _, err := p.Parse(s.sql, "", "")
		if err != nil || len(nodes) != 1 {
			continue
		}
		understood++
		v := &tableNames{}
		nodes[0].Accept(v)
		got, err := Classify(s.sql, "d", Dialect{Flavor: server.MySQL})
		if err != nil {
			t.Errorf("line %d: the parser knows it, we do not: %v", s.line, err)
			continue
		}
		for _, n := range got.Tables {
			if !slices.Contains(v.names, n) && !strings.Contains(s.sql, "UNION") { // it drops the tables of a MERGE
				t.Errorf("line %d: %s: we name %s, the parser does not: %v", s.line, s.sql, n, v.names)
			}
		}
		// The parser also lists names of common table expressions and, for
		// DELETE, aliases.
		for _, n := range v.names {
			if !slices.Contains(got.Tables, n) && !strings.Contains(s.sql, "WITH ") && !strings.HasPrefix(s.sql, "DELETE") && s.class != Event && s.class != Trigger {
				t.Errorf("line %d: %s: the parser names %s, we do not", s.line, s.sql, n)
			}
		}
	}
	t.Logf("%d statements understood", understood)
	if understood < 80 {
		t.Error("the parser understood too few to be a check")
	}
}

type tableNames struct{ names []schema.Name }

func (v *tableNames) Enter(n ast.Node) (ast.Node, bool) {
	if t, ok := n.(*ast.TableName); ok && t.Name.O != "" {
		db := t.Schema.O
		if db == "" {
			db = "d"
		}
		v.names = append(v.names, schema.Name{Schema: db, Table: t.Name.O})
	}
	return n, false
}

func (v *tableNames) Leave(n ast.Node) (ast.Node, bool) { return n, true }
