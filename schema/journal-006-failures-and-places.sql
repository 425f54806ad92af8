-- A journal of this version may have FAILURE and MOVEFILES messages, and reasons in LOGBUILD. Versions
-- from before would take them for damaged ones: this is what they refuse the journal by.
SELECT 1;
