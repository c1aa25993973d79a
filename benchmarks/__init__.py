"""How fast batchinfer is beside what it could be and beside its peers; see README.md."""
