// Package ext stands in for the module of this name that Traefik's own go.mod replaces by a folder: a replacement
// does not travel with a published module, and Traefik needs no more of it than these two empty extension points.
package ext

// HTTP extends Traefik's dynamic HTTP configuration by nothing.
type HTTP struct{}

// Router extends Traefik's dynamic router configuration by nothing.
type Router struct{}
