package check

import "github.com/twinspan/twinspan/test/chaos/history"

// Forfeit takes out of a history what a forced takeover gave up: everything that
// processes of the lost city did and were told after it was cut off, but for what
// was confirmed to them as protected. What remains has to hold as ever. It returns
// the names of the entries that had been confirmed, all of them unprotected: the
// lost city's nodes have to hand them over when they come back.
func Forfeit(records []history.Record, lost func(process string) bool, cut int64) ([]history.Record, []string) {
	var kept []history.Record
	var given []string
	ids := map[opKey]string{}
	late := map[sessionKey]bool{} // writers that were opened behind the cut
	for _, r := range records {
		if !lost(r.Process) || r.At <= cut {
			if r.Kind == history.Append && r.Phase == history.Invoke {
				ids[opKey{r.Process, r.Op}] = r.ID
			}
			kept = append(kept, r)
			continue
		}
		key := opKey{r.Process, r.Op}
		switch {
		case r.Kind == history.Open && r.Phase == history.Invoke:
			late[sessionKey{r.Process, r.Session}] = true
			kept = append(kept, r) // it may have fenced somebody
		case r.Kind == history.Append && r.Phase == history.Invoke:
			ids[key] = r.ID
			if !late[sessionKey{r.Process, r.Session}] {
				kept = append(kept, r)
			}
		case r.Kind == history.Append && r.Phase == history.OK && r.Protected:
			kept = append(kept, r)
		case r.Kind == history.Append && r.Phase == history.OK:
			given = append(given, ids[key])
		}
	}
	return kept, given
}
