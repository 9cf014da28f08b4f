/* version.h - what this build is: the nearest tag and commit. */
#ifndef STENTOR_BASE_VERSION_H
#define STENTOR_BASE_VERSION_H

extern const char stentor_version[]; /* made by the Makefile */

#endif
