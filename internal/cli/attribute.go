package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// attributes are the fields of a spec message that flags and key=value
// arguments set.
type attributes struct {
	spec protoreflect.Message
	set  []string // the fields that were set, in order
}

func attributesOf(spec proto.Message) *attributes {
	return &attributes{spec: spec.ProtoReflect()}
}

// mask returns the fields that were set.
func (at *attributes) mask() *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: at.set} }

// flag adds a flag that sets a field. A bool field's flag may stand alone.
func (at *attributes) flag(cmd *cobra.Command, name, field, help string) *attributeFlag {
	value := &attributeFlag{at: at, field: at.field(field)}
	cmd.Flags().Var(value, name, help)
	if value.field.Kind() == protoreflect.BoolKind {
		cmd.Flags().Lookup(name).NoOptDefVal = "true"
	}
	if enum := value.field.Enum(); enum != nil {
		mustRegister(cmd, name, enumWords(enum))
	}
	return value
}

func (at *attributes) field(name string) protoreflect.FieldDescriptor {
	return at.spec.Descriptor().Fields().ByName(protoreflect.Name(name))
}

// assign sets a field from text. An empty text empties a list.
func (at *attributes) assign(field protoreflect.FieldDescriptor, text string) error {
	value, err := parseField(field, text)
	if err != nil {
		return err
	}
	name := string(field.Name())
	switch {
	case !field.IsList():
		at.spec.Set(field, value)
	case text == "":
		at.spec.Clear(field)
	case slices.Contains(at.set, name):
		at.spec.Mutable(field).List().Append(value)
	default:
		list := at.spec.NewField(field).List()
		list.Append(value)
		at.spec.Set(field, protoreflect.ValueOfList(list))
	}
	if !slices.Contains(at.set, name) {
		at.set = append(at.set, name)
	}
	return nil
}

// assignAll sets fields from arguments of the form key=value; only the keys in
// allowed are known.
func (at *attributes) assignAll(args, allowed []string) error {
	for _, arg := range args {
		key, text, ok := strings.Cut(arg, "=")
		key = strings.ReplaceAll(key, "-", "_")
		if !ok {
			return usage("%q is not an attribute: write key=value", arg)
		}
		if !slices.Contains(allowed, key) {
			return usage("there is no attribute %q to set: the attributes are %s", key, joinWords(allowed))
		}
		if slices.Contains(at.set, key) {
			return usage("%s is given twice", key)
		}
		if err := at.assign(at.field(key), text); err != nil {
			return usage("%s: %w", key, err)
		}
	}
	return nil
}

func parseField(field protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text), nil
	case protoreflect.BoolKind:
		b, err := parseBool(text)
		return protoreflect.ValueOfBool(b), err
	case protoreflect.Uint32Kind:
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("%q is not a number", text)
		}
		return protoreflect.ValueOfUint32(uint32(n)), nil
	case protoreflect.Uint64Kind:
		n, err := parseSize(text)
		return protoreflect.ValueOfUint64(n), err
	case protoreflect.EnumKind:
		number, ok := enumNumber(field.Enum(), text)
		if !ok {
			return protoreflect.Value{}, fmt.Errorf("%q is not one of %s", text, strings.Join(enumWords(field.Enum()), ", "))
		}
		return protoreflect.ValueOfEnum(number), nil
	}
	return protoreflect.Value{}, fmt.Errorf("%s cannot be set", field.Name())
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", text)
}

// attributeFlag makes a field a flag.
type attributeFlag struct {
	at    *attributes
	field protoreflect.FieldDescriptor
	// opposite makes the flag of a bool field mean the contrary of the field.
	opposite bool
}

var _ pflag.Value = (*attributeFlag)(nil)

// Set implements pflag.Value.
func (f *attributeFlag) Set(text string) error {
	if f.opposite {
		yes, err := parseBool(text)
		if err != nil {
			return err
		}
		text = strconv.FormatBool(!yes)
	}
	return f.at.assign(f.field, text)
}

// String implements pflag.Value: flags have no defaults, the array has.
func (f *attributeFlag) String() string { return "" }

// Type implements pflag.Value: the word for the value in the help.
func (f *attributeFlag) Type() string {
	switch f.field.Kind() {
	case protoreflect.BoolKind:
		return "bool"
	case protoreflect.Uint32Kind:
		return "N"
	case protoreflect.Uint64Kind:
		return "SIZE"
	case protoreflect.EnumKind:
		return strings.Join(enumWords(f.field.Enum()), "|")
	}
	return "TEXT"
}
