package target

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// Bits of the query event's flags2 (sql/query_options.h of MySQL, sql/sql_priv.h
// of MariaDB).
const (
	flagAutoIsNull        = 1 << 14
	flagExplicitTimestamp = 1 << 23 // MariaDB
	flagNoForeignKeys     = 1 << 26
	flagRelaxedUnique     = 1 << 27
	flagIfExists          = 1 << 28 // MariaDB
)

// Bits of sql_mode. The low 32 mean the same on both flavours, as far as both
// have them; those above do not.
const (
	modeMySQLKnows = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7 | 1<<18 | 1<<19 | 1<<20 | 1<<21 | 1<<22 | 1<<23 | 1<<24 | 1<<25 | 1<<26 |
		1<<27 | 1<<29 | 1<<30 | 1<<31 | 1<<32
	// MariaDB's modes that change what a statement means: ORACLE,
	// EMPTY_STRING_IS_NULL.
	modeMariaDBMeaning = 1<<9 | 1<<32
	modeBoth           = modeMySQLKnows &^ (1 << 32)
)

// mode is the session's sql_mode as the target can have it.
func (j *ddlJob) mode() (uint64, error) {
	m, from, to := j.d.SQLMode, j.r.o.Source, j.r.info.Flavor
	if from == to {
		if to == server.MySQL {
			m &= modeMySQLKnows // older versions had more, without effect on DDL that still parses
		}
		return m, nil
	}
	if from == server.MariaDB && m&modeMariaDBMeaning != 0 {
		return 0, j.fault("its sql_mode has no like on MySQL", remedyByHand, nil)
	}
	return m & modeBoth, nil
}

// charset is the character set of a collation id of the source, and an id that
// the target knows with the same character set; 0 is utf8mb4.
func (r *DDLRunner) charset(id uint16) (name string, usable int, ok bool) {
	if id == 0 {
		return "utf8mb4", 45, true
	}
	mine := r.o.Source == r.info.Flavor
	c, known := r.collations[int(id)]
	switch {
	case known && (mine || id < 255):
		return c.Charset, int(id), true
	case !mine && r.o.Source == server.MySQL && id >= 255 && id <= 323, mine && r.info.Flavor == server.MySQL && id >= 255 && id <= 323:
		return "utf8mb4", 45, true
	case r.o.Source == server.MariaDB && id >= 2048 && id < 2304, id == 1024+33:
		return "utf8mb3", 33, true
	case r.o.Source == server.MariaDB && id >= 2304 && id < 2560, id == 1024+45:
		return "utf8mb4", 45, true
	case r.o.Source == server.MariaDB && id > 1024 && id < 1024+255:
		if c, known := r.collations[int(id)-1024]; known { // the NO PAD twin of an older one
			return c.Charset, int(id) - 1024, true
		}
	}
	return "", 0, false
}

// readable is a statement's text in UTF-8, for reading it: the server converts
// what is in another charset, with the tables it will use itself.
func (r *DDLRunner) readable(ctx context.Context, text, charset string) (string, string, error) {
	switch charset {
	case "utf8mb4", "utf8mb3", "utf8", "ascii", "binary":
		return text, charset, nil
	}
	ascii := true
	for i := range len(text) {
		ascii = ascii && text[i] < 0x80
	}
	if ascii && charset != "sjis" && charset != "cp932" && charset != "swe7" {
		return text, "utf8mb4", nil
	}
	query := appendHex(append([]byte("SELECT CONVERT(_"), charset+" "...), []byte(text), 0)
	var out string
	err := r.o.DB.QueryRowContext(ctx, string(append(query, " USING utf8mb4)"...))).Scan(&out)
	return out, "utf8mb4", err
}

// Values of further variables: numbers, words, and simply quoted words.
var plainSetting = regexp.MustCompile(`^(?:-?[0-9]+(?:\.[0-9]+)?|[A-Za-z][A-Za-z0-9_]*|'[A-Za-z0-9_+,.:/@= -]*')$`)
var settingName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// ignoredSettings say how the source guarded itself, not what the statement does.
var ignoredSettings = []string{"sql_require_primary_key", "sql_generate_invisible_primary_key", "pseudo_thread_id", "gtid_next", "binlog_format", "insert_id", "last_insert_id", "rand_seed1", "rand_seed2"}

// enter gives the job's connection the statement's session.
func (j *ddlJob) enter(ctx context.Context) error {
	info, d := j.r.info, j.d
	mode, err := j.mode()
	if err != nil {
		return err
	}
	bit := func(mask uint32, set, unset string) string {
		if d.Flags2&mask != 0 {
			return set
		}
		return unset
	}
	settings := []setting{
		{name: "sql_mode", value: strconv.FormatUint(mode, 10)},
		{name: "autocommit", value: "1"},
		{name: "sql_auto_is_null", value: bit(flagAutoIsNull, "1", "0")},
		{name: "foreign_key_checks", value: bit(flagNoForeignKeys, "0", "1")},
		{name: "unique_checks", value: bit(flagRelaxedUnique, "0", "1")},
		{name: "sql_safe_updates", value: "0"},
		{name: "lock_wait_timeout", value: "60"},
	}
	if info.Flavor == server.MariaDB {
		settings = append(settings,
			setting{name: "max_statement_time", value: "0"},
			setting{name: "check_constraint_checks", value: "0"}, // the source's rows passed, or were let pass
			setting{name: "sql_if_exists", value: "0"},
		)
		if j.r.o.Source == server.MariaDB {
			settings[len(settings)-1].value = bit(flagIfExists, "1", "0")
			if info.AtLeast(10, 10) {
				settings = append(settings, setting{name: "explicit_defaults_for_timestamp", value: bit(flagExplicitTimestamp, "1", "0")})
			}
		}
	} else {
		settings = append(settings,
			setting{name: "sql_require_primary_key", value: "0", want: "0"},
			setting{name: "sql_generate_invisible_primary_key", value: "0", want: "0"}, // the text has the key
			setting{name: "show_gipk_in_create_table_and_information_schema", value: "1", want: "1"},
		)
	}
	if err := prepareSession(ctx, j.conn, settings); err != nil {
		return j.settingFault(err)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Variables)) {
		value := d.Variables[name]
		if slices.Contains(ignoredSettings, name) {
			continue
		}
		if name == "character_set_collations" {
			if info.Flavor != j.r.o.Source {
				continue // the other flavour has no such variable
			}
			if value, err = j.collationDefaults(value); err != nil {
				return err
			}
		}
		if !settingName.MatchString(name) || !plainSetting.MatchString(value) {
			return j.fault(fmt.Sprintf("session variable %q with value %q is not of a known form", name, value), remedyByHand, nil)
		}
		err := prepareSession(ctx, j.conn, []setting{{name: name, value: value}})
		if server.ErrorNumber(err) == 1193 && j.r.o.Source != info.Flavor {
			continue // the other flavour has no such variable
		}
		if err != nil {
			return j.settingFault(err)
		}
	}
	if d.DefaultSchema != "" {
		_, err := j.conn.ExecContext(ctx, "USE "+server.QuoteName(d.DefaultSchema))
		// A text that needs a missing schema fails by itself; one that
		// creates it does not.
		if err != nil && server.ErrorNumber(err) != 1049 {
			return err
		}
	}
	return j.enterText(ctx)
}

// enterText sets what says how the text's bytes and literals are read. It goes
// last: statements after it are read that way, too.
func (j *ddlJob) enterText(ctx context.Context) error {
	d := j.d
	var sets []string
	if d.TimeZone != "" {
		sets = append(sets, "SESSION time_zone = '"+strings.ReplaceAll(strings.ReplaceAll(d.TimeZone, `\`, ``), "'", "''")+"'")
	}
	if !d.Timestamp.IsZero() {
		sets = append(sets, fmt.Sprintf("SESSION timestamp = %d.%06d", d.Timestamp.Unix(), d.Timestamp.Nanosecond()/1000))
	}
	for _, c := range []struct {
		name string
		id   uint16
	}{{"collation_server", d.CollationServer}, {"collation_connection", d.CollationConnection}, {"character_set_client", d.CharsetClient}} {
		if c.id == 0 {
			continue
		}
		_, usable, ok := j.r.charset(c.id)
		if !ok {
			return j.fault(fmt.Sprintf("%s is collation id %d, which the target does not know", c.name, c.id), remedyByHand, nil)
		}
		if usable != int(c.id) {
			j.r.o.Logger.Warn().Str("variable", c.name).Uint16("source_id", c.id).Int("target_id", usable).
				Msg("the target does not have the source's collation: a default that the statement leaves out may differ")
		}
		// By name: MariaDB does not take the ids of its newer collations.
		value := strconv.Itoa(usable)
		if named, ok := j.r.collations[usable]; ok {
			value = "'" + named.Name + "'"
			if c.name == "character_set_client" {
				value = "'" + named.Charset + "'"
			}
		}
		sets = append(sets, "SESSION "+c.name+" = "+value)
	}
	if len(sets) == 0 {
		return nil
	}
	if _, err := j.conn.ExecContext(ctx, "SET "+strings.Join(sets, ", ")); err != nil {
		return j.settingFault(err)
	}
	return nil
}

// collationDefaults spells MariaDB's character_set_collations, which the event
// has as pairs of ids: any collation of a charset, and its default collation.
func (j *ddlJob) collationDefaults(ids string) (string, error) {
	var names []string
	for pair := range strings.SplitSeq(ids, ",") {
		of, is, _ := strings.Cut(pair, "=")
		a, errOf := strconv.Atoi(of)
		b, errIs := strconv.Atoi(is)
		charset, knownOf := j.r.collations[a]
		collation, knownIs := j.r.collations[b]
		if errOf != nil || errIs != nil || !knownOf || !knownIs {
			return "", j.fault(fmt.Sprintf("character_set_collations has %q, which the target does not know", pair), remedyByHand, nil)
		}
		names = append(names, charset.Charset+"="+collation.Name)
	}
	return "'" + strings.Join(names, ",") + "'", nil
}

func (j *ddlJob) settingFault(err error) error {
	if Retryable(err) {
		return err
	}
	remedy := "give the applier's account the right to set it, or " + remedyByHand
	if server.ErrorNumber(err) == 1298 {
		remedy = "load the time zone tables on the target (mysql_tzinfo_to_sql)"
	}
	return j.fault("its session settings can't be had on the target", remedy, err)
}
