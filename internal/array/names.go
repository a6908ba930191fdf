package array

import (
	"regexp"
	"strings"
	"unicode"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{1,46}$`)

// CheckName returns a KindInvalid error unless name is a valid name of a what:
// [a-z][a-z0-9-]{1,46}.
func CheckName(what, name string) error {
	if name == "" {
		return Errorf(KindInvalid, "%s name is missing", what)
	}
	if !nameForm.MatchString(name) {
		return Errorf(KindInvalid, "%s name %q: use 2 to 47 lower-case letters, digits and dashes, a letter first", what, name)
	}
	return nil
}

// NormalizeISCSIName returns the form of an iSCSI name in which names are compared, or a
// KindInvalid error where it is none: see wire.NormalizeName.
func NormalizeISCSIName(name string) (string, error) {
	if len(name) > wire.MaxName {
		return "", Errorf(KindInvalid, "iSCSI name %q has %d bytes, at most %d are allowed", name, len(name), wire.MaxName)
	}
	normal, err := wire.NormalizeName(name)
	if err != nil {
		return "", Errorf(KindInvalid, "iSCSI name %q: write it like iqn.2001-04.com.example:host1, eui. with 16 or naa. with 16 or 32 hex digits", name)
	}
	return normal, nil
}

// NQN bounds in bytes (NVMe Base 2.0 §4.5).
const (
	minNQN = 11
	maxNQN = 223
)

var nqnForm = regexp.MustCompile(`^nqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[A-Za-z0-9.-]+:.+$`)

// An NQN that starts with nqnUUID ends with a UUID (NVMe Base 2.0 §4.5).
const nqnUUID = "nqn.2014-08.org.nvmexpress:uuid:"

var uuidForm = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// CheckNQN returns a KindInvalid error unless nqn is an NVMe qualified name: 11
// to 223 bytes, nqn.YYYY-MM.reverse.domain:string or the form with a UUID
// (NVMe Base 2.0 §4.5). NQNs are compared byte by byte.
func CheckNQN(nqn string) error {
	if len(nqn) < minNQN || len(nqn) > maxNQN {
		return Errorf(KindInvalid, "NQN %q has %d bytes: use %d to %d", nqn, len(nqn), minNQN, maxNQN)
	}
	if !nqnForm.MatchString(nqn) || !plainNQN(nqn) {
		return Errorf(KindInvalid, "NQN %q: write it like nqn.2014-08.com.example:host1", nqn)
	}
	if uuid, ok := strings.CutPrefix(nqn, nqnUUID); ok && !uuidForm.MatchString(uuid) {
		return Errorf(KindInvalid, "NQN %q: behind %s there has to be a UUID", nqn, nqnUUID)
	}
	return nil
}

// plainNQN reports whether s is UTF-8 without white space and control characters.
func plainNQN(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar })
}

// CheckNQNPattern is CheckNQN for names that may have the wildcards * (any
// characters) and ? (one byte).
func CheckNQNPattern(pattern string) error {
	if !strings.ContainsAny(pattern, "*?") {
		return CheckNQN(pattern)
	}
	if len(pattern) > maxNQN || !plainNQN(pattern) {
		return Errorf(KindInvalid, "NQN pattern %q: use an NQN of at most %d bytes with * and ? as wildcards", pattern, maxNQN)
	}
	return nil
}

// NormalizePattern is NormalizeISCSIName for names that may have the wildcards
// * (any characters) and ? (one character).
func NormalizePattern(pattern string) (string, error) {
	if !strings.ContainsAny(pattern, "*?") {
		return NormalizeISCSIName(pattern)
	}
	lower := strings.ToLower(pattern)
	foreign := func(r rune) bool { return r != '*' && r != '?' && !wire.NameRune(r) }
	if len(lower) > wire.MaxName || strings.ContainsFunc(lower, foreign) {
		return "", Errorf(KindInvalid, "initiator pattern %q: use an iSCSI name of at most %d bytes with * and ? as wildcards", pattern, wire.MaxName)
	}
	return lower, nil
}

// MatchPattern reports whether a pattern matches a name; iSCSI names are
// normalized before.
// It takes at most len(pattern)*len(name) steps.
func MatchPattern(pattern, name string) bool {
	p, n := 0, 0
	star, mark := -1, 0 // the last * and where it stopped matching
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// specificity orders patterns that match the same name: higher is more
// specific. An exact name comes first, then patterns by their literal
// characters, then by question marks.
func specificity(pattern string) int {
	wild := strings.Count(pattern, "*")
	ask := strings.Count(pattern, "?")
	if wild+ask == 0 {
		return 1 << 20
	}
	return (len(pattern)-wild-ask)<<8 + min(ask, 255)
}
