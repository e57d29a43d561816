package repositorytest

// Checks are the names of the checks.
func Checks() (names []string) {
	for _, c := range all() {
		names = append(names, c.name)
	}
	return names
}
