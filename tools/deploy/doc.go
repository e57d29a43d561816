// Package deploy pins the tools that check manifests and workflows. It has no code.
package deploy
