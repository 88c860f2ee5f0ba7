package main

import (
	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/internal/ctl"
)

// controlFlags say which gateway a command speaks to.
type controlFlags struct {
	control string
	file    string
}

func (f *controlFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.control, "control", "", "the gateway's control `socket` (default: `control` of -c FILE, else "+config.DefaultControl+")")
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "take the control socket from this configuration `file`")
}

// client is a client of the gateway that the flags name.
func (f *controlFlags) client() (*ctl.Client, error) {
	path := config.DefaultControl
	if f.file != "" && f.control == "" {
		cfg, err := config.Load(f.file)
		if err != nil {
			return nil, &failure{exitUsage, err}
		}
		path = cfg.Control
	}
	if f.control != "" {
		path = f.control
	}
	return ctl.NewClient(path), nil
}
