// Package driver is what the adapters of package repository are made of: how an entity type is mapped and its values
// are encoded, filters as trees, checked plans with cursors, and what a write collects inside a document. Users of
// repositories do not need it.
//
//	m, err := driver.MappingOf[Product]() // refuses types that would lose something
//	plan, err := query.Plan()             // refuses queries that do not fit, and cursors of others
//	...                                   // select by plan.Where, plan.Keys, plan.Offset and plan.Limit+1
//	items, next := driver.Page(plan, items)
//
// Package repositorytest checks an adapter.
package driver
