package ctl

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// JSON writes a message of the API for programs: the proto file's field names
// (snake_case) in its order, every field, zero or not, and numbers as numbers.
// protojson would leave zeros out and write 64-bit numbers as strings.
func JSON(m proto.Message) []byte {
	var compact, indented bytes.Buffer
	writeMessage(&compact, m.ProtoReflect())
	// Indent fails on broken JSON only, and what is written here is not.
	_ = json.Indent(&indented, compact.Bytes(), "", "  ")
	indented.WriteByte('\n')
	return indented.Bytes()
}

func writeMessage(b *bytes.Buffer, m protoreflect.Message) {
	b.WriteByte('{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		field := fields.Get(i)
		writeText(b, string(field.Name()))
		b.WriteByte(':')
		value := m.Get(field)
		if !field.IsList() {
			writeValue(b, value)
			continue
		}
		b.WriteByte('[')
		for j := range value.List().Len() {
			if j > 0 {
				b.WriteByte(',')
			}
			writeValue(b, value.List().Get(j))
		}
		b.WriteByte(']')
	}
	b.WriteByte('}')
}

// writeValue writes one value; the API has no maps, enumerations or bytes.
func writeValue(b *bytes.Buffer, v protoreflect.Value) {
	switch x := v.Interface().(type) {
	case protoreflect.Message:
		writeMessage(b, x)
	case string:
		writeText(b, x)
	case bool:
		b.WriteString(strconv.FormatBool(x))
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			x = 0 // JSON has no word for it
		}
		b.WriteString(strconv.FormatFloat(x, 'f', -1, 64))
	case int32, int64:
		b.WriteString(strconv.FormatInt(v.Int(), 10))
	case uint32, uint64:
		b.WriteString(strconv.FormatUint(v.Uint(), 10))
	default:
		b.WriteString("null")
	}
}

func writeText(b *bytes.Buffer, s string) {
	text, _ := json.Marshal(s) // a string can always be written
	b.Write(text)
}
