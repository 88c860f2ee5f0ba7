// Package config reads the gateway's configuration file: YAML in, validated
// values out. It owns the grammar of the file, the rules between its keys, and
// the words in which mistakes are reported: every error names file, line,
// column and key, what was found and what would be right.
//
// It opens no socket, changes nothing on the host and installs nothing: a file
// is either whole and valid, and becomes a Config, or it is refused. Sequence
// numbers and live SAs belong to sad, selectors and their text forms to spd,
// suites to esp; this package speaks sad.Params and spd.Policy to the engine.
//
// Keys are read, checked and handed on. They are never printed: not by an
// error, not in a source excerpt, not by formatting a Config.
package config
