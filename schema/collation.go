package schema

import (
	"context"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// Collation is one collation of a server. Ids are the server's own: MySQL and
// MariaDB give different meanings to some.
type Collation struct {
	ID      int
	Name    string // the full name: "utf8mb4_uca1400_ai_ci", never "uca1400_ai_ci"
	Charset string
	MaxLen  int // bytes of the charset's longest character
}

// Collations are a server's collations by id.
type Collations map[int]Collation

// LoadCollations reads all collations of the server. MariaDB's uca1400 family has
// no id and charset of its own in information_schema.collations: there is one
// for each charset, and only the applicability table has them.
func LoadCollations(ctx context.Context, q server.Querier) (Collations, error) {
	const (
		ofMySQL = `SELECT c.id, c.collation_name, c.character_set_name, s.maxlen
			FROM information_schema.collations c
			JOIN information_schema.character_sets s ON s.character_set_name = c.character_set_name`
		ofMariaDB = `SELECT a.id, a.full_collation_name, a.character_set_name, s.maxlen
			FROM information_schema.collation_character_set_applicability a
			JOIN information_schema.character_sets s ON s.character_set_name = a.character_set_name`
	)
	var version string
	if err := q.QueryRowContext(ctx, "SELECT @@version").Scan(&version); err != nil {
		return nil, fmt.Errorf("load collations: %w", err)
	}
	query := ofMySQL
	if strings.Contains(strings.ToLower(version), "mariadb") {
		query = ofMariaDB
	}
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("load collations: %w", err)
	}
	defer rows.Close()
	all := Collations{}
	for rows.Next() {
		var c Collation
		if err := rows.Scan(&c.ID, &c.Name, &c.Charset, &c.MaxLen); err != nil {
			return nil, fmt.Errorf("load collations: %w", err)
		}
		all[c.ID] = c
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load collations: %w", err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("load collations: the server lists none")
	}
	return all, nil
}

// ByName finds a collation by its full name.
func (c Collations) ByName(name string) (Collation, bool) {
	for _, x := range c {
		if x.Name == name {
			return x, true
		}
	}
	return Collation{}, false
}
