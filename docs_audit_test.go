package adit_test

import (
	"regexp"
	"testing"

	"github.com/adit-ipsec/adit/dataplane"
)

// TestDocsAuditNamesEveryAuditableReason: docs/audit.md has a row for each reason
// that is audited, and for no other.
func TestDocsAuditNamesEveryAuditableReason(t *testing.T) {
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:Out|In)\\w+)` \\|").FindAllStringSubmatch(readText(t, "docs/audit.md"), -1) {
		rows[row[1]] = true
	}
	for _, reason := range dataplane.DropReasons() {
		if name := reason.String(); reason.Auditable() != rows[name] {
			t.Errorf("%s: auditable is %v, and docs/audit.md has a row for it: %v", name, reason.Auditable(), rows[name])
		}
		delete(rows, reason.String())
	}
	for name := range rows {
		t.Errorf("docs/audit.md speaks of %s, which no gateway counts", name)
	}
}
