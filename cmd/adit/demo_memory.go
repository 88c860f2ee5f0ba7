package main

import (
	"context"
	"errors"
)

func (d *demo) runMemory(context.Context) error { return errors.ErrUnsupported }
