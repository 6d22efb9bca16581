package workload

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

func TestDifferencesSeesThem(t *testing.T) {
	a, b := mysqltest.Start(t, mysqltest.MySQL97), mysqltest.Start(t, mysqltest.MariaDB1011)
	common := []string{"CREATE DATABASE d", "USE d", "CREATE TABLE same (id INT PRIMARY KEY)", "INSERT INTO same VALUES (1)",
		"CREATE TABLE nokey (a VARCHAR(9) CHARACTER SET latin1)", "CREATE TABLE bytes (id INT PRIMARY KEY, b VARBINARY(9))"}
	a.Exec(t, append(common, "INSERT INTO nokey VALUES ('x'),('x'),('ä')", "INSERT INTO bytes VALUES (1,0x6100),(2,NULL),(3,'')", "CREATE TABLE only_a (a INT)")...)
	b.Exec(t, append(common, "INSERT INTO nokey VALUES ('x'),('ä')", "INSERT INTO bytes VALUES (1,0x61),(2,''),(3,'')")...)
	found, err := Differences(t.Context(), a.DB(), b.DB(), []string{"d"})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(found, "\n")
	for _, want := range []string{
		"d.only_a: BASE TABLE here, missing there", "d.nokey: 2 times here, 1 there", `d.bytes: 1 times here, 0 there: id="1" b="a\x00"`, "id=\"2\" b=NULL", `0 times here, 1 there: id="2" b=""`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("not found: %s\nin\n%s", want, all)
		}
	}
	if strings.Contains(all, `id="3"`) || strings.Contains(all, "ä") {
		t.Errorf("equal rows are reported:\n%s", all)
	}
	same, err := Differences(t.Context(), a.DB(), a.DB(), []string{"d"})
	if err != nil || len(same) > 0 {
		t.Errorf("a server differs from itself: %v %v", same, err)
	}
}
