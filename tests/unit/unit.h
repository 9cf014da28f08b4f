/* unit.h - what every unit test includes, in cmocka's order. */
#ifndef STENTOR_TESTS_UNIT_H
#define STENTOR_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
