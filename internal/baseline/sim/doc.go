// Package sim plays an invented scheme to the baselines: so many members over so many days, with days, nights, weekends, holidays, noise,
// outages, honest changes, and planted attacks, all from one seed. It measures how many attacks are told, how soon, and how often something is
// told that nobody planted. It reads and writes nothing; what it assumes stands in model.go, and docs/baselines.md says what follows from it.
package sim
