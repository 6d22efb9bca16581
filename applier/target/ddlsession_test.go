package target

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/twinspan/twinspan/internal/server"
)

// From 11.4 on, MariaDB's events name collations whose ids SET does not take, and
// the defaults that a CREATE TABLE without collations depends on.
func TestDDLSessionOfNewerMariaDB(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		info := b.info
		if info.Flavor != server.MariaDB || !info.AtLeast(11, 4) {
			return
		}
		id := func(name string) uint16 {
			n, err := strconv.Atoi(b.rows("SELECT id FROM information_schema.collation_character_set_applicability WHERE full_collation_name = '" + name + "'")[0])
			if err != nil {
				t.Fatal(err)
			}
			return uint16(n)
		}
		r := b.replay()
		d := r.statement("CREATE TABLE x (a VARCHAR(9) CHARACTER SET utf8mb4, b VARCHAR(9) CHARACTER SET latin1)")
		d.CharsetClient, d.CollationConnection, d.CollationServer = id("utf8mb4_uca1400_ai_ci"), id("utf8mb4_uca1400_as_cs"), id("utf8mb4_uca1400_ai_ci")
		d.Variables = map[string]string{"character_set_collations": fmt.Sprintf("45=%d,8=%d", id("utf8mb4_uca1400_swedish_ai_ci"), id("latin1_german1_ci"))}
		if err := r.run(d); err != nil {
			t.Fatal(err)
		}
		b.want("SELECT GROUP_CONCAT(collation_name ORDER BY column_name) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'x'",
			"utf8mb4_uca1400_swedish_ai_ci,latin1_german1_ci")
	})
}
