"""The bytes of a `.dumont` file: records to bytes and back, validated, no I/O. FORMAT.md is the specification."""
