-- What the event triggers call that record_ddl makes.
CREATE FUNCTION @extschema@.note_ddl_command() RETURNS event_trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'note_ddl_command_wrapper';
