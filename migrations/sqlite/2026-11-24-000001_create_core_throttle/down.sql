DROP TABLE core_throttle;
