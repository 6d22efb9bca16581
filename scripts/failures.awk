# What failed, out of the output of go test, with or without -v: of each failed
# test its seed and the last lines it printed.
# LINES: lines a test, at most (20 unless set).
BEGIN { if (!LINES) LINES = 20 }
function short(name) { return match(name, /^[^\/]+\/[^\/]+/) ? substr(name, 1, RLENGTH) : name }
/^=== (RUN|NAME|CONT|PAUSE)/ { at = short($3); next }
/^ *--- FAIL:/ {
  at = short($3)
  if (!(at in lines)) { lines[at] = ""; failed[++n] = at }
  lines[at] = lines[at] $0 "\n"
  next
}
/^ *--- (PASS|SKIP):/ { at = ""; next }
/^(ok|FAIL|PASS|\?)[ \t]*/ { if ($1 == "FAIL" && NF > 1) packages = packages $0 "\n"; at = ""; next }
/^(panic:|fatal error:|WARNING: DATA RACE)/ { loud = loud $0 "\n" }
at != "" {
  sub(/^[ \t]+/, "  ")
  if ($0 ~ /replay with/) seed[at] = substr($0, 1, 400)
  last[at, ++count[at] % LINES] = substr($0, 1, 400)
}
END {
  if (n + (packages != "") + (loud != "") == 0) exit
  print "=== what failed"
  for (i = 1; i <= n; i++) {
    t = failed[i]
    printf "%s", lines[t]
    from = 1
    if (count[t] > LINES) { from = count[t] - LINES + 1; if (t in seed) print seed[t] }
    for (l = from; l <= count[t]; l++) print last[t, l % LINES]
  }
  printf "%s%s", loud, packages
}
