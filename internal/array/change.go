package array

import (
	"fmt"
	"slices"
)

// differ collects what an update changes.
type differ struct {
	subject string
	fields  []string
	plan    Plan
}

// add notes a field whose value differs. Secrets are noted by addSecret.
func (d *differ) add(field string, before, after any) {
	was, is := show(before), show(after)
	if was == is {
		return
	}
	d.fields = append(d.fields, field)
	d.plan.Steps = append(d.plan.Steps, fmt.Sprintf("set %s of %s from %s to %s", field, d.subject, was, is))
}

// addSecret is add without the values.
func (d *differ) addSecret(field, before, after string) {
	if before == after {
		return
	}
	d.fields = append(d.fields, field)
	d.plan.Steps = append(d.plan.Steps, fmt.Sprintf("set %s of %s", field, d.subject))
}

func (d *differ) warn(text string) { d.plan.Warnings = append(d.plan.Warnings, text) }

func show(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprint(v)
}

// replace returns list with one element exchanged; list is not changed.
func replace[T any](list []*T, old, now *T) []*T {
	list = slices.Clone(list)
	list[slices.Index(list, old)] = now
	return list
}

// remove returns list without one element; list is not changed.
func remove[T any](list []*T, old *T) []*T {
	i := slices.Index(list, old)
	return slices.Concat(list[:i], list[i+1:])
}
