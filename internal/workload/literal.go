package workload

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Values are written as SQL literals: what the server parses is what counts,
// and no driver stands between the test and the value.

// hexText is a text literal that no connection charset can change.
func hexText(charset string, raw []byte) string {
	if len(raw) == 0 {
		return "''"
	}
	return "_" + charset + " 0x" + hex.EncodeToString(raw)
}

func hexBytes(raw []byte) string {
	if len(raw) == 0 {
		return "''"
	}
	return "0x" + hex.EncodeToString(raw)
}

// quote makes a string literal for a session without NO_BACKSLASH_ESCAPES.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\x00", `\0`, "\n", `\n`, "\r", `\r`).Replace(s) + "'"
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	// Zeros at the end and inside are where lengths get lost.
	if n > 2 && r.IntN(3) == 0 {
		b[n-1], b[n-2] = 0, 0
	}
	return b
}

// Runes that every charset family can hold, and those that only Unicode can.
var alphabets = map[string][]rune{
	"ascii":   []rune("abcXYZ019 '\"`\\%_\t\n-"),
	"latin1":  []rune("abcXYZ09 'äöüÄÖÜßéèñÿ€Žœ"),
	"latin2":  []rune("abcXYZ09 'ąćęłńóśźżäöüß"),
	"cp1251":  []rune("abc 09'АБВГДабвгдёЯя"),
	"gbk":     []rune("abc 09'订单城市数据库异地多活中文表"),
	"big5":    []rune("abc 09'訂單城市資料庫中文表"),
	"sjis":    []rune("abc 09'日本語テストデータ表"),
	"euckr":   []rune("abc 09'한국어데이터"),
	"ucs2":    []rune("abc 09'äßЯ中Ωﬁ"),
	"utf16":   []rune("abc 09'äßЯ中Ω😀𝄞"),
	"utf32":   []rune("abc 09'äßЯ中Ω😀𝄞"),
	"utf8mb3": []rune("abc 09'äßẞЯ中Ωﬁé"),
	"utf8mb4": []rune("abcABC 09'\"\\äÄßẞéÉЯ中Ω😀👩‍👩‍👧𝄞\u200b\u0301\t\n"),
}

// randomText returns n characters that the charset can hold.
func randomText(r *rand.Rand, charset string, n int) string {
	letters, ok := alphabets[charset]
	if !ok {
		letters = alphabets["ascii"]
	}
	var b strings.Builder
	for range n {
		b.WriteRune(letters[r.IntN(len(letters))])
	}
	return b.String()
}

// textLiteral: the server converts from utf8mb4 to the column's charset.
func textLiteral(s string) string { return hexText("utf8mb4", []byte(s)) }

func randomDecimal(r *rand.Rand, precision, scale int, signed bool) string {
	digits := func(n int) string {
		if n == 0 {
			return ""
		}
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('0' + r.IntN(10))
		}
		return string(b)
	}
	whole := digits(r.IntN(precision-scale) + 1)
	s := whole
	if scale > 0 {
		s += "." + digits(scale)
	}
	if signed && r.IntN(2) == 0 {
		s = "-" + s
	}
	return s
}

func randomDate(r *rand.Rand) string {
	return fmt.Sprintf("%04d-%02d-%02d", 1000+r.IntN(9000), 1+r.IntN(12), 1+r.IntN(28))
}

func fraction(r *rand.Rand, digits int) string {
	if digits == 0 {
		return ""
	}
	s := fmt.Sprintf("%06d", r.IntN(1_000_000))
	return "." + s[:digits]
}

func randomClock(r *rand.Rand, digits int) string {
	return fmt.Sprintf("%02d:%02d:%02d", r.IntN(24), r.IntN(60), r.IntN(60)) + fraction(r, digits)
}

// randomJSON is a document of at most depth levels, as MySQL accepts it.
func randomJSON(r *rand.Rand, depth int) string {
	switch n := r.IntN(9); {
	case n == 0 && depth > 0:
		parts := make([]string, r.IntN(5))
		for i := range parts {
			parts[i] = randomJSON(r, depth-1)
		}
		return "[" + strings.Join(parts, ",") + "]"
	case n <= 2 && depth > 0:
		parts := make([]string, r.IntN(5))
		for i := range parts {
			parts[i] = strconv.Quote(fmt.Sprintf("k%d%s", i, randomText(r, "gbk", r.IntN(3)))) + ":" + randomJSON(r, depth-1)
		}
		return "{" + strings.Join(parts, ",") + "}"
	case n == 3:
		return strconv.FormatInt(int64(r.Uint64()), 10)
	case n == 4:
		return strconv.FormatUint(r.Uint64(), 10)
	case n == 5:
		return strconv.FormatFloat(r.NormFloat64()*1e10, 'g', -1, 64)
	case n == 6:
		return []string{"true", "false", "null"}[r.IntN(3)]
	default:
		return jsonString(randomText(r, "utf8mb4", r.IntN(30)))
	}
}

func jsonString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}
