package cli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// object is a message of the API as the command line prints it: every field,
// in the order of the field numbers, under its name in the API definition.
// Numbers are numbers, enumerations lower-case words without the prefix of
// their type, times RFC 3339, durations seconds, bytes hexadecimal; an unset
// message or optional field is null.
type object []member

type member struct {
	key   string
	value any
}

// document converts a message for printing.
func document(m proto.Message) object { return objectOf(m.ProtoReflect()) }

func objectOf(m protoreflect.Message) object {
	fields := m.Descriptor().Fields()
	o := make(object, 0, fields.Len())
	for i := range fields.Len() {
		field := fields.Get(i)
		o = append(o, member{string(field.Name()), fieldValue(m, field)})
	}
	return o
}

func fieldValue(m protoreflect.Message, field protoreflect.FieldDescriptor) any {
	if field.HasPresence() && !m.Has(field) {
		return nil
	}
	value := m.Get(field)
	switch {
	case field.IsList():
		list := value.List()
		out := make([]any, list.Len())
		for i := range out {
			out[i] = scalar(field, list.Get(i))
		}
		return out
	case field.IsMap():
		out := make(map[string]any, value.Map().Len())
		value.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			out[k.String()] = scalar(field.MapValue(), v)
			return true
		})
		return out
	}
	return scalar(field, value)
}

func scalar(field protoreflect.FieldDescriptor, value protoreflect.Value) any {
	switch field.Kind() {
	case protoreflect.EnumKind:
		return enumWord(field.Enum(), value.Enum())
	case protoreflect.BytesKind:
		return hex.EncodeToString(value.Bytes())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch m := value.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return m.AsTime().Format(time.RFC3339Nano)
		case *durationpb.Duration:
			return m.AsDuration().Seconds()
		}
		return objectOf(value.Message())
	}
	return value.Interface()
}

// enumWord is the word for an enumeration value: VOLUME_KIND_FILE of VolumeKind
// is "file".
func enumWord(enum protoreflect.EnumDescriptor, number protoreflect.EnumNumber) string {
	value := enum.Values().ByNumber(number)
	if value == nil {
		return "unknown"
	}
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(value.Name()), enumPrefix(enum))), "_", "-")
}

// enumNumber finds the value that a word stands for; ok is false for none.
func enumNumber(enum protoreflect.EnumDescriptor, word string) (number protoreflect.EnumNumber, ok bool) {
	for _, w := range enumWords(enum) {
		if w == word {
			name := enumPrefix(enum) + strings.ToUpper(strings.ReplaceAll(word, "-", "_"))
			return enum.Values().ByName(protoreflect.Name(name)).Number(), true
		}
	}
	return 0, false
}

// enumWords lists the words of an enumeration but the one for "unspecified".
func enumWords(enum protoreflect.EnumDescriptor) []string {
	var words []string
	for i := range enum.Values().Len() {
		if number := enum.Values().Get(i).Number(); number != 0 {
			words = append(words, enumWord(enum, number))
		}
	}
	return words
}

// enumPrefix is what the value names of an enumeration start with: the type's
// name in upper-case snake form.
func enumPrefix(enum protoreflect.EnumDescriptor) string {
	var b strings.Builder
	previousLower := false
	for _, r := range string(enum.Name()) {
		upper := r >= 'A' && r <= 'Z'
		if upper && previousLower {
			b.WriteByte('_')
		}
		previousLower = !upper
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String()) + "_"
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// MarshalYAML writes the members in their order.
func (o object) MarshalYAML() (any, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for _, m := range o {
		var key, value yaml.Node
		if err := key.Encode(m.key); err != nil {
			return nil, err
		}
		if err := value.Encode(m.value); err != nil {
			return nil, err
		}
		node.Content = append(node.Content, &key, &value)
	}
	return node, nil
}
