DROP TABLE kairos_heartbeat;
