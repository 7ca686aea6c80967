package resilience

// version is the version of the plugin, which the metrics, the status and the list of gateways show. In the sources it is that of no release:
// bundle -version writes a release's into its copy of this file.
const version = "0.0.0-dev"
